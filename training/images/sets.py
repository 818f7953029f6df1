"""Image sets as bytes in memory: uint8 [N, C, H, W] and labels, from whatever source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from training.config.domain import DomainConfig, Use
from training.config.experiment import Experiment
from training.errors import DataError
from training.images.blending import blend
from training.images.fitting import fit
from training.images.labels import read_labels, tell_apart
from training.images.sharing import share_out_images
from training.images.sources import decode, fingerprint, open_rows
from training.pixels.transforms import transform


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, C, H, W] of a domain and, where the source has them, labels int64.

    These are classes [N], or attributes [N, K] of 1 and 0.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...] = ()
    """What the source calls its classes, where it says so."""


def load_training_sets(experiment: Experiment) -> dict[str, ImageSet]:
    """Load what each domain learns from, unpaired by construction.

    An image that several domains want, by whatever source, split or spelling, goes to one of them, by the
    experiment's seed. A domain that asks for a count gets so many of its share. Raises DataError, naming the
    domain, the source and what is wrong with it.
    """
    tables, fingerprints = {}, {}
    for domain in experiment.domains:
        with _naming(domain):
            table = tables[domain.name] = open_rows(domain, "train")
            fingerprints[domain.name] = [fingerprint(cell) for cell in table[domain.image_column]]
    shares = share_out_images(fingerprints, experiment.seed)
    return {
        domain.name: _load(
            _counted(tables[domain.name].select(shares[domain.name]), domain),
            domain,
            "train",
            experiment.size,
        )
        for domain in experiment.domains
    }


def check_test_splits(experiment: Experiment) -> None:
    """Raise DataError where the images that a run is measured by cannot be loaded; none of them is kept.

    Or where domains have other classes, and a lesson or a coupling compares them.
    """
    names = {d.name: load_split(d, "test", experiment.size).class_names for d in experiment.domains}
    if (experiment.lessons or experiment.asks("classifiers")) and (apart := tell_apart(names)):
        raise DataError(f"{apart}; lessons and the semantic coupling need domains of the same classes")


def load_split(domain: DomainConfig, use: Use, size: tuple[int, int]) -> ImageSet:
    """Load all images there are to learn from, or to measure against, as the domain's. Raises DataError."""
    with _naming(domain):
        table = open_rows(domain, use)
    return _load(table, domain, use, size)


def _counted(share: datasets.Dataset, domain: DomainConfig) -> datasets.Dataset:
    """Return the first rows of a domain's share, as many as it asks for: a fair sample of them all."""
    if domain.count is None:
        return share
    with _naming(domain):
        if len(share) < domain.count:
            raise DataError(
                f"count = {domain.count}, and its share of {domain.source!r} is {len(share)} images"
            )
    return share.select(range(domain.count))


def _load(table: datasets.Dataset, domain: DomainConfig, use: Use, size: tuple[int, int]) -> ImageSet:
    with _naming(domain):
        if not len(table):
            raise DataError(f"other domains want the images of {domain.source!r} too, and none is left")
        labels, names = read_labels(table, domain)
        pixels = np.empty((len(table), *size, domain.channels), np.uint8)
        for row, cell in enumerate(table[domain.image_column]):
            try:
                pixels[row] = fit(decode(cell), size, domain)
            except DataError as error:
                which = cell["path"] or f"number {row}"
                raise DataError(f"image {which} of {domain.source!r} {error}") from error
        for patches in domain.patches:
            pixels = blend(pixels, patches, use)
    images = torch.from_numpy(pixels).movedim(-1, 1).contiguous()
    return ImageSet(transform(images, domain.transform), labels, names)


@contextmanager
def _naming(domain: DomainConfig) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"domain {domain.name}: {error}") from error
