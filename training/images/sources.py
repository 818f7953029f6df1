"""Where images come from: rows of a source, as tables whose images are still encoded."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from numpy.typing import NDArray

from training.config.domain import SourceConfig, Use
from training.errors import DataError, describe_causes
from training.images.array_files import array_splits, arrays_named, read_splits, split_names
from training.images.folders import ImageFolder
from training.images.hub import locate, read_hub
from training.images.listing import has_images
from training.images.sharing import share_out
from training.images.tables import (
    has_configurations,
    is_table_of,
    list_tables,
    read_saved,
    read_tables,
    unzip,
)

IMAGE_COLUMNS = {"image", "label"}  # of a folder of images


def open_rows(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return the rows to learn from, or to measure against, that have an image and the values asked for.

    Raises DataError, naming what of the source is missing and what there is.
    """
    return number_rows(config, use)[0]


def number_rows(config: SourceConfig, use: Use) -> tuple[datasets.Dataset, NDArray[np.int64]]:
    """Return the same rows, and the number of each in the split: one row has one number in all columns."""
    split = config.split_for(use)
    table = _read(config, use)
    if config.image_column not in table.column_names:
        raise DataError(
            f"image_column {config.image_column!r} is not among the columns {table.column_names} of {config.source!r}"
        )
    try:
        table = table.cast_column(config.image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"image_column {config.image_column!r} of {config.source!r} holds "
            f"{table.features[config.image_column]}, not images"
        ) from error
    group_of_rows(table, config)
    counts = _rows_that_count(table, config, split)
    rows = np.flatnonzero(counts & _divide(table, config, use, counts))
    return table.select(rows), rows


def _read(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return all rows of a split."""
    split, place = config.split_for(use), locate(config.source)
    try:
        return _read_folder(Path(place), config, use) if Path(place).is_dir() else read_hub(config, split)
    except Exception as error:  # each of the library's builders has errors of its own
        raise DataError(
            f"source {config.source!r}, split {split!r} cannot be loaded: {describe_causes(error)}"
            f"{_remedy(config, use)}"
        ) from error


def _remedy(config: SourceConfig, use: Use) -> str:
    """Say what to do where a source has nothing to measure against."""
    if use == "train" or config.held_out:
        return ""
    return "; without a split to measure against, held_out = 0.1 takes a tenth of the training images for it"


def _read_folder(root: Path, config: SourceConfig, use: Use) -> datasets.Dataset:
    """Read a split of a folder as what it holds: images, arrays, or tables that `datasets` reads."""
    split = config.split_for(use)
    names = split_names(split)
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return read_saved(root, split)
    tables = list_tables(root)
    if not (config.configuration or has_configurations(root)):
        folder = ImageFolder(root)
        names = [split] if split in folder.folders else names
        named = any(is_table_of(name, table) for name in names for table in tables)
        asked = config.needed_columns - IMAGE_COLUMNS
        found = any(folder.find(name) and folder.find(name) != root for name in names)
        if found and not (named and asked):
            other = [] if config.held_out or use == "test" else split_names(config.test_split)
            return read_splits(folder.splits(names, other), split)
        zipped = {name: root / f"{name}.zip" for name in names}
        if not found and all(file.is_file() for file in zipped.values()):
            return read_splits(
                {name: partial(ImageFolder(unzip(file)).read_whole) for name, file in zipped.items()}, split
            )
        if any(arrays_named(root, name) for name in names):
            return read_splits(array_splits(root), split)
        if has_images(root) and not named:
            return read_splits(folder.splits(names, []), split)
    if splits := array_splits(root):
        if config.configuration:
            raise DataError(f"configuration {config.configuration!r}: a folder of arrays has none")
        return read_splits(splits, split)
    if not tables:
        raise DataError(f"folder {root} holds neither images nor tables nor arrays")
    return read_tables(root, tables, config, split)


def _rows_that_count(table: datasets.Dataset, config: SourceConfig, split: str) -> NDArray[np.bool_]:
    counts = np.array(table.data.column(config.image_column).is_valid())
    for column, wanted in config.where.items():
        if column not in table.column_names:
            raise DataError(
                f"where asks for {column!r}, which is not among the columns {table.column_names} of {config.source!r}"
            )
        values = _called(table, column)
        fits = np.array([_is_same(value, wanted) for value in values], bool)
        if not fits.any():
            found = ", ".join(sorted(set(map(repr, values)))[:10])
            raise DataError(f"where asks for {column} = {wanted!r}, and {config.source!r} has {found}")
        counts &= fits
    if not counts.any():
        raise DataError(f"split {split!r} of {config.source!r} has no image that counts")
    return counts


def _called(table: datasets.Dataset, column: str) -> list[Any]:
    """Return the values of a column, classes by what they are called."""
    feature, values = table.features[column], table[column][:]
    if not isinstance(feature, datasets.ClassLabel):
        return list(values)
    return [None if value is None or value < 0 else Class(value, feature.names[value]) for value in values]


class Class(NamedTuple):
    """A class of a source: its number, and what it is called."""

    number: int
    name: str

    def __repr__(self) -> str:
        return repr(self.name)


def _is_same(value: object, wanted: bool | int | str) -> bool:
    """Compare names as they are called, and numbers by their value: "07" is 7, and yes and no are not."""
    if isinstance(value, Class):
        numbered = isinstance(wanted, int) and not value.name.lstrip("-").isdecimal()
        return value.number == wanted if numbered else _is_same(value.name, wanted)
    if isinstance(value, bool | None) or isinstance(wanted, bool):
        return value == wanted  # of attributes 1 and 0 are yes and no
    try:
        return float(str(value)) == float(wanted)
    except ValueError:
        return str(value).strip() == str(wanted).strip()


def _divide(table: datasets.Dataset, config: SourceConfig, use: Use, counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows are held out, or all but these; every row if none are.

    Whole rows are held out, and all rows of a group together, so that no counterpart of an image that is
    measured against is learned from.
    """
    if config.held_out is None:
        return np.ones(len(table), bool)
    groups = group_of_rows(table, config)
    names = list(dict.fromkeys(groups))
    order = share_out(len(names), shares=1, seed=0)[0]
    apart = {names[i] for i in order[: round(config.held_out * len(names))]}
    held_out = np.array([group in apart for group in groups], bool)
    measured, learned = int((held_out & counts).sum()), int((~held_out & counts).sum())
    if not measured or not learned:
        raise DataError(
            f"held_out = {config.held_out} of the {counts.sum()} images in split {config.train_split!r} of "
            f"{config.source!r} leaves {measured} to measure against and {learned} to learn from"
        )
    return held_out if use == "test" else ~held_out


def group_of_rows(table: datasets.Dataset, config: SourceConfig) -> list[Hashable]:
    """Return what each row is grouped by: the value in a column, or the row itself. Raises DataError."""
    if config.group is None:
        return list(range(len(table)))
    if config.group not in table.column_names:
        raise DataError(f"group {config.group!r} is not among the columns {table.column_names} of {config.source!r}")
    values = table[config.group][:]
    return [("row", row) if value is None else str(value) for row, value in enumerate(values)]
