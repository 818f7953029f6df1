"""Image sets as bytes in memory: uint8 [N, C, H, W] and labels [N], from the hub or from a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from training.config import Experiment
from training.domain_config import DomainConfig
from training.domains import transform
from training.errors import DataError

DATA_ROOT = "COGAN_DATA"
MODES = {1: "L", 3: "RGB"}

datasets.disable_progress_bars()


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, C, H, W] of a domain and, where the source has them, labels int64 [N]."""

    images: Tensor
    labels: Tensor | None


def load_training_sets(experiment: Experiment) -> dict[str, ImageSet]:
    """Load what each domain learns from, unpaired by construction.

    Domains of one source and split share its images out by the experiment's seed: none serves two
    domains. Raises DataError, naming the source and what is wrong with it.
    """
    sharers: dict[tuple[str, str], list[str]] = {}
    for domain in experiment.domains:
        sharers.setdefault((locate(domain.source), domain.train_split), []).append(domain.name)
    loaded = {}
    for domain in experiment.domains:
        table = _open(domain, domain.train_split)
        names = sharers[locate(domain.source), domain.train_split]
        shares = share_out(len(table), len(names), experiment.seed)
        share = shares[names.index(domain.name)]
        if not len(share):
            raise DataError(f"domain {domain.name}: {domain.source!r} has {len(table)} images for {names}")
        loaded[domain.name] = _load(table.select(share), domain, experiment.size)
    return loaded


def load_split(domain: DomainConfig, split: str, size: tuple[int, int]) -> ImageSet:
    """Load all of one split as images of the domain. Raises DataError."""
    return _load(_open(domain, split), domain, size)


def share_out(count: int, shares: int, seed: int) -> list[NDArray[np.int64]]:
    """Split 0 .. count - 1 at random into disjoint, equal shares."""
    order = np.random.default_rng(seed).permutation(count)
    return np.array_split(order, shares)


def locate(source: str) -> str:
    """Return the source's folder below $COGAN_DATA, the folder of that path, or else its hub name."""
    root = os.environ.get(DATA_ROOT)
    folders = [Path(root, Path(source).name)] if root else []
    found = (str(folder.resolve()) for folder in [*folders, Path(source)] if folder.is_dir())
    return next(found, source)


def _open(domain: DomainConfig, split: str) -> datasets.Dataset:
    try:
        table = datasets.load_dataset(locate(domain.source), split=split)
    except Exception as error:  # each of the library's builders has errors of its own
        raise DataError(
            f"domain {domain.name}: source {domain.source!r}, split {split!r} cannot be loaded "
            f"(${DATA_ROOT} is {os.environ.get(DATA_ROOT, 'not set')}): {error}"
        ) from error
    if domain.image_column not in table.column_names:
        raise DataError(
            f"domain {domain.name}: image_column {domain.image_column!r} is not among the columns "
            f"{table.column_names} of {domain.source!r}"
        )
    try:
        return table.cast_column(domain.image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"domain {domain.name}: image_column {domain.image_column!r} of {domain.source!r} holds "
            f"{table.features[domain.image_column]}, not images"
        ) from error


def _load(table: datasets.Dataset, domain: DomainConfig, size: tuple[int, int]) -> ImageSet:
    pixels = np.empty((len(table), *size, domain.channels), np.uint8)
    decoder = datasets.Image()
    for row, cell in enumerate(table[domain.image_column]):
        try:
            pixels[row] = _fit(decoder.decode_example(cell), size, domain)
        except (OSError, SyntaxError, AttributeError) as error:  # no image, a broken one, an empty cell
            which = (cell and cell["path"]) or f"number {row}"
            raise DataError(
                f"domain {domain.name}: image {which} of {domain.source!r} cannot be read: {error}"
            ) from error
    images = torch.from_numpy(pixels).movedim(-1, 1).contiguous()
    return ImageSet(transform(images, domain.transform), _labels(table, domain))


def _labels(table: datasets.Dataset, domain: DomainConfig) -> Tensor | None:
    labels = table[domain.label_column][:] if domain.label_column in table.column_names else []
    if None in labels or len(set(labels)) < 2:  # as a folder of images without folders of classes has it
        return None
    try:
        return torch.tensor(labels, dtype=torch.int64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"domain {domain.name}: label_column {domain.label_column!r} of {domain.source!r} holds "
            f"{table.features[domain.label_column]}, not whole numbers"
        ) from error


def _fit(image: Image.Image, size: tuple[int, int], domain: DomainConfig) -> NDArray[np.uint8]:
    height, width = size
    image = ImageOps.expand(image.convert(MODES[domain.channels]), domain.margin)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(height, width, domain.channels)
