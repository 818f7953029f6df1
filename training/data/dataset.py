"""Image sets in memory, uint8 [N, C, H, W], with their labels: classes, or attributes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config.data import DomainConfig, PatchesConfig, Use
from training.config.experiment import Experiment
from training.data.listing import as_called, log_once, some
from training.data.preprocess import Fingerprints, decode, decode_rows, fingerprints, holds_images, in_mode, read_cells
from training.data.sources import (
    MIN_IMAGES,
    group_of_rows,
    join_rows,
    locate,
    number_rows,
    open_rows,
    share_out,
    share_out_images,
)
from training.errors import DataError
from training.losses.pixels import Images, transform

MAX_CLASSES = 2**16
MISSING = -1  # of a ClassLabel: an image without a class


def read_labels(table: Table, domain: DomainConfig) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return classes, int64 [N], or attributes [N, K] of 1 and 0; and the names of the classes.

    None if not every image has a class; that is logged if some have. Raises DataError if a column holds something
    else, or attributes are missing.
    """
    if domain.label_columns:
        return _attributes(table.rows, domain), ()
    classes = _classes(table, domain)
    feature = None if classes is None else table.rows.features[domain.label_column]
    return _merge(classes, tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else (), domain)


def require_labels(labels: Tensor | None, domain: DomainConfig, use: Use) -> Tensor:
    """Return the labels of a domain's images for one use. Raises DataError if there are none."""
    if labels is None:
        raise DataError(
            f"domain {domain.name}: lessons and classifiers need classes, and split "
            f"{domain.split_for(use)!r} of {domain.source!r} has no column {domain.label_column!r} that "
            "gives every image one: whole numbers from 0, at least two of them"
        )
    return labels


def class_mismatch(names: Mapping[str, tuple[str, ...]]) -> str:
    """Return which class has other names in other domains, by number, as labels are; empty if they agree."""
    known = [(name, classes) for name, classes in names.items() if classes]
    for name, classes in known[1:]:
        first, theirs = known[0]
        if len(classes) != len(theirs):
            return f"domain {name} has {len(classes)} classes and {first} {len(theirs)}"
        for number, (own, other) in enumerate(zip(classes, theirs, strict=True)):
            if not _is_same_name(own, other):
                return f"class {number} of domain {name} is {own!r}, and that of {first} {other!r}"
    return ""


def _classes(table: Table, domain: DomainConfig) -> Tensor | None:
    column, feature = domain.label_column, table.rows.features.get(domain.label_column)
    labels = [] if feature is None else [_class_of(value) for value in table.rows[column][:]]
    if isinstance(feature, datasets.ClassLabel) or all(label in (None, MISSING) for label in labels):
        labels = [None if label == MISSING else label for label in labels]
    for label in labels:
        if not isinstance(label, int | None) or not 0 <= (label or 0) < MAX_CLASSES:
            raise DataError(
                f"label_column {column!r} of {domain.source!r} holds {label!r} and is {feature}; classes are whole "
                f"numbers from 0 to {MAX_CLASSES - 1}: number them, leave empty what has no class, or name another "
                "column, even one that is not there, to learn without classes"
            )
    missing = [row for row, label in enumerate(labels) if label is None]
    if 0 < len(missing) < len(labels):
        which = some([origin.name for origin in _origins(table.select(missing), domain)])
        of = f"{len(missing)} of {len(labels)} images of {domain.source!r} have no class in column {column!r}"
        log_once(f"domain {domain.name}: {of}, so that all count as unlabelled: {which}")
    if missing or len(set(labels)) < 2:  # as images without folders of classes have it
        return None
    return torch.tensor(labels, dtype=torch.int64)


def _class_of(value: Any) -> Any:
    """Return 3 for 3.0 and "3", None for an empty cell, and any other value as it is."""
    if (isinstance(value, str) and _is_number(value)) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    is_empty = value != value or (isinstance(value, str) and not value.strip())
    return None if is_empty else value


def _merge(
    classes: Tensor | None, names: tuple[str, ...], domain: DomainConfig
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Renumber classes so that merged ones are one class, with the name of the first."""
    if classes is None or not domain.merged_classes:
        return classes, names
    if unknown := [name for merged in domain.merged_classes for name in merged if name not in names]:
        known = ", ".join(names) or f"no names, for column {domain.label_column!r} holds numbers alone"
        raise DataError(f"merged_classes names {unknown[0]!r}, and {domain.source!r} has the classes {known}")
    called = {name: merged[0] for merged in domain.merged_classes for name in merged}
    kept = tuple(name for name in names if called.get(name, name) == name)
    numbers = torch.tensor([kept.index(called.get(name, name)) for name in names])
    return numbers[classes], kept


def _is_same_name(own: str, other: str) -> bool:
    """Compare names of classes, ignoring case, and numbers by value: 07 is 7."""
    if _is_number(own) and _is_number(other):
        return int(own) == int(other)
    return as_called(own).casefold() == as_called(other).casefold()


def _is_number(name: str) -> bool:
    return name.strip().isascii() and name.strip().isdecimal()


def _attributes(table: datasets.Dataset, domain: DomainConfig) -> Tensor:
    if missing := [name for name in domain.label_columns if name not in table.column_names]:
        raise DataError(f"label_columns {missing} are not among the columns {table.column_names} of {domain.source!r}")
    columns = {name: table[name][:] for name in domain.label_columns}
    for name, values in columns.items():
        if wrong := [value for value in values if value not in (0, 1)]:
            raise DataError(
                f"label_columns: {name!r} of {domain.source!r} holds {wrong[0]!r}; attributes are true and "
                "false, or 1 and 0"
            )
    return torch.tensor(list(columns.values()), dtype=torch.int64).T


def blend(images: NDArray[np.uint8], patches: PatchesConfig, use: Use) -> NDArray[np.uint8]:
    """Return |patch - image| for images uint8 [N, H, W, C] (Ganin & Lempitsky 2015, section 4).

    Each patch is a random part, of the image's height and width, of a random image of the source; one seed always
    gives the same. Raises DataError if the source cannot be read or an image of it is smaller than a patch.
    """
    table = open_rows(patches, use)
    random = np.random.default_rng(patches.seed)
    chosen = random.integers(len(table), size=len(images))
    corners = random.random((len(images), 2))  # as shares of the room there is
    order = np.argsort(chosen, kind="stable")
    rows, starts = np.unique(chosen[order], return_index=True)  # each is decoded once
    patch = np.empty(images.shape, np.uint8)
    _, height, width, channels = images.shape
    cells = table.select(rows)[patches.image_column]
    for row, cell, wanting in zip(rows, cells, np.split(order, starts[1:]), strict=True):
        try:
            photo = np.atleast_3d(np.asarray(in_mode(decode(cell), channels)))
            room = np.array(photo.shape[:2]) - (height, width) + 1
            if room.min() < 1:
                raise DataError(f"has {photo.shape[0]} x {photo.shape[1]} pixels, and patches {height} x {width}")
        except DataError as error:
            raise DataError(f"image {cell['path'] or f'number {row}'} of {patches.source!r} {error}") from error
        for image, (top, left) in zip(wanting, (corners[wanting] * room).astype(int), strict=True):
            patch[image] = photo[top : top + height, left : left + width]
    return np.maximum(images, patch) - np.minimum(images, patch)


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, C, H, W] of a domain, where each is from, and labels int64, if the source has them.

    Labels are classes [N], which may have names, or attributes [N, K] of 1 and 0.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()


def digest(images: Tensor) -> str:
    """Return a digest of the pixels of images."""
    return hashlib.blake2b(images.contiguous().numpy().data, digest_size=16).hexdigest()


class Origin(NamedTuple):
    """An image as it is stored: its file, or its number in a table, and a digest of its bytes."""

    name: str
    fingerprint: str


def load_training_sets(experiment: Experiment) -> dict[str, ImageSet]:
    """Load what each domain learns from, unpaired by construction.

    An image that several domains want, by whatever source, split or spelling, goes to one of them, by the
    experiment's seed, and so do the images of a row, or of a group of rows. A domain with a `count`
    gets that many of its share. Raises DataError, naming the domain, the source and what is wrong with it.
    """
    columns = {domain.image_column for domain in experiment.domains}
    tables, keys = {}, {}
    for domain in experiment.domains:
        with _naming(domain):
            table = tables[domain.name] = open_table(domain, "train")
            keys[domain.name] = _keys(table, domain, columns)
    shares = share_out_images(join_rows(keys), experiment.seed)
    return {
        domain.name: _load(tables[domain.name], domain, "train", experiment.size, _counted(shares[domain.name], domain))
        for domain in experiment.domains
    }


@dataclass(frozen=True)
class Table:
    """Rows of a source, with the fingerprint of each image and the number of each row."""

    rows: datasets.Dataset
    marks: Fingerprints
    numbers: list[int]

    def select(self, rows: list[int]) -> Table:
        """Return some of the rows."""
        return Table(self.rows.select(rows), [self.marks[row] for row in rows], [self.numbers[row] for row in rows])


def open_table(domain: DomainConfig, use: Use) -> Table:
    """Open the rows of a domain for one use. Raises DataError."""
    rows, numbers = number_rows(domain, use)
    return Table(rows, fingerprints(rows, domain.image_column), numbers.tolist())


def _keys(table: Table, domain: DomainConfig, columns: set[str]) -> list[list[Hashable]]:
    """Return the keys of each row, which rows that belong together share: its images, its place, and its group."""
    others = sorted((columns & set(table.rows.column_names)) - {domain.image_column})
    others = [column for column in others if holds_images(table.rows, column)]
    tied = [table.marks, *(fingerprints(table.rows, column) for column in others if domain.paired_columns)]
    keys: list[list[Hashable]] = [[key for key in row if key is not None] for row in zip(*tied, strict=True)]
    if domain.paired_columns:
        place = locate(domain.source), domain.configuration, domain.train_split, *sorted(table.rows.column_names)
        for row, number in zip(keys, table.numbers, strict=True):
            row.append((place, number))
    if domain.group is not None:
        for row, group in zip(keys, group_of_rows(table.rows, domain), strict=True):
            if isinstance(group, str):
                row.append((domain.group, group))
    return keys


def load_pairs(experiment: Experiment, use: Use = "test") -> dict[str, ImageSet]:
    """Load the true pairs of the test rows, or training rows: images in the same row of one table, in one order.

    Empty unless several domains have columns of one table that are pairs. Raises DataError.
    """
    tables: dict[tuple[object, ...], list[DomainConfig]] = {}
    for domain in experiment.domains:
        rows_of = locate(domain.source), domain.configuration, domain.split_for(use), domain.held_out
        tables.setdefault((*rows_of, domain.group), []).append(domain)
    domains = max(tables.values(), key=lambda some: len({domain.image_column for domain in some}))
    columns = {domain.image_column for domain in domains}
    if len(columns) < 2 or not all(domain.paired_columns for domain in domains):
        return {}
    opened: dict[str, Table] = {}
    for domain in domains:
        with _naming(domain):
            opened[domain.name] = open_table(domain, use)
    common = sorted(set.intersection(*(set(table.numbers) for table in opened.values())))
    pairs = {}
    for domain in domains if common else ():
        table = opened[domain.name]
        places = {number: row for row, number in enumerate(table.numbers)}
        rows = [places[number] for number in common]
        pairs[domain.name] = _load(table, domain, use, experiment.size, rows)
    return pairs


def load_held_out(experiment: Experiment, limit: int = 2000) -> Images:
    """Load at most `limit` test images of each domain, a random sample that is always the same.

    Raises DataError, also for fewer than two, which no distance can be measured to, and if domains have different
    classes and an auxiliary or coupling loss compares them.
    """
    held_out, names = {}, {}
    for domain in experiment.domains:
        test = load_split(domain, "test", experiment.size)
        if len(test.images) < MIN_IMAGES:
            remedy = "two are needed: add some, or raise the domain's held_out"
            raise DataError(f"domain {domain.name}: there is one image to measure against; {remedy}")
        names[domain.name] = test.class_names
        held_out[domain.name] = sample_images(test.images, limit)
    compared = experiment.lessons or experiment.requires("classifiers") or experiment.requires("choices")
    if compared and (mismatch := class_mismatch(names)):
        raise DataError(f"{mismatch}; lessons, and couplings by classes, need domains of the same classes")
    return held_out


def report_learned(experiment: Experiment, sets: Mapping[str, ImageSet]) -> None:
    """Log how many images each domain is measured against, of those that some domain learns from, by their bytes."""
    learned = {origin.fingerprint: origin.name for one in sets.values() for origin in one.origins}
    for domain in experiment.domains:
        marks = {mark.hex() for mark in open_table(domain, "test").marks if mark is not None}
        if both := sorted(learned[mark] for mark in marks & learned.keys()):
            of = f"of {len(marks)} images that it is measured against, {len(both)} are learned from"
            log_once(f"domain {domain.name}: {of}, as they are equal, byte for byte: {some(both)}")


def load_split(domain: DomainConfig, use: Use, size: tuple[int, int]) -> ImageSet:
    """Load all images of a domain for one use, training or test. Raises DataError."""
    with _naming(domain):
        table = open_table(domain, use)
    return _load(table, domain, use, size)


def sample_images(images: Tensor, count: int | None = None) -> Tensor:
    """Return at most `count` images, or all, in a random order that is always the same: folders are sorted by class."""
    return images[share_out(len(images), shares=1, seed=0)[0][:count]]


def _counted(share: list[int], domain: DomainConfig) -> list[int]:
    """Return the first rows of a domain's share, as many as `count`: a fair sample of all."""
    if domain.count is None:
        return share
    if len(share) < domain.count:
        raise DataError(
            f"domain {domain.name}: count = {domain.count}, and its share of {domain.source!r} is {len(share)} images"
        )
    return share[: domain.count]


def _load(
    table: Table, domain: DomainConfig, use: Use, size: tuple[int, int], rows: list[int] | None = None
) -> ImageSet:
    """Load rows of a table, or all of them."""
    with _naming(domain):
        if rows is not None and not rows:
            raise DataError(f"other domains want the images of {domain.source!r} too, and none is left")
        if rows is not None and domain.count is not None:
            table, rows = table.select(rows), None
        pixels = decode_rows(table.rows, table.marks, domain, size)
        if rows is not None:  # all are decoded once, for the other domains and other seeds too
            pixels, table = pixels[rows], table.select(rows)
        labels, names = read_labels(table, domain)
        for patches in domain.patches:
            pixels = blend(pixels, patches, use)
    images = torch.from_numpy(pixels).movedim(-1, 1).contiguous()
    return ImageSet(transform(images, domain.transform), labels, names, _origins(table, domain))


def _origins(table: Table, domain: DomainConfig) -> tuple[Origin, ...]:
    cells = itertools.chain.from_iterable(read_cells(table.rows, domain.image_column))
    return tuple(
        Origin((cell or {}).get("path") or f"row {number} of {domain.source}", (mark or b"").hex())
        for cell, number, mark in zip(cells, table.numbers, table.marks, strict=True)
    )


@contextmanager
def _naming(domain: DomainConfig) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"domain {domain.name}: {error}") from error
