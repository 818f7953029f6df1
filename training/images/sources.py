"""Where images come from: rows of a source, as tables whose images are still encoded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from training.config.domain import SourceConfig, Use
from training.errors import DataError
from training.images.array_files import ARRAY_FILES, Splits, read_arrays
from training.images.sharing import share_out

DATA_ROOT = "COGAN_DATA"

datasets.disable_progress_bars()


def open_rows(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return the rows to learn from, or to measure against, that have an image and the values asked for.

    Raises DataError, naming what of the source is missing and what there is.
    """
    split = config.split_for(use)
    table = _read(config, split)
    if config.image_column not in table.column_names:
        raise DataError(
            f"image_column {config.image_column!r} is not among the columns {table.column_names} "
            f"of {config.source!r}"
        )
    try:
        table = table.cast_column(config.image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"image_column {config.image_column!r} of {config.source!r} holds "
            f"{table.features[config.image_column]}, not images"
        ) from error
    return _divide(_rows_that_count(table, config, split), config, use)


def decode(cell: dict[str, Any]) -> Image.Image:
    """Return the image of a row. Raises DataError, which leaves it to others to name the image."""
    try:
        image: Image.Image = datasets.Image().decode_example(cell)
        image.load()
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise DataError(f"cannot be read: {error}") from error
    return image


def fingerprint(cell: dict[str, Any]) -> bytes:
    """Return a digest of a row's image as it is stored: the same file has the same, wherever it lies."""
    try:
        stored = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    except OSError as error:
        raise DataError(f"image {cell['path']} cannot be read: {error}") from error
    return hashlib.blake2b(stored, digest_size=16).digest()


def locate(source: str) -> str:
    """Return the source's folder below $COGAN_DATA, the folder of that path, or else its hub name."""
    root = os.environ.get(DATA_ROOT)
    folders = [Path(root, Path(source).name)] if root else []
    found = (str(folder.resolve()) for folder in [*folders, Path(source)] if folder.is_dir())
    return next(found, source)


def _read(config: SourceConfig, split: str) -> datasets.Dataset:
    place = locate(config.source)
    try:
        if splits := _array_splits(place):
            if config.configuration:
                raise DataError(f"configuration {config.configuration!r}: a folder of arrays has none")
            return read_arrays(splits, split)
        return datasets.load_dataset(place, config.configuration, split=split, cache_dir=_cache(place))
    except Exception as error:  # each of the library's builders has errors of its own
        sought = ""
        if not Path(place).is_dir():
            root = os.environ.get(DATA_ROOT, "not set")
            sought = f"there is no folder {Path(place).resolve()}, and ${DATA_ROOT} is {root}: "
        raise DataError(
            f"source {config.source!r}, split {split!r} cannot be loaded: {sought}{error}"
        ) from error


def _cache(place: str) -> str | None:
    """Return a cache for a folder as it is now, and the library's own for a name of the hub.

    The library's own takes two folders of one name and with the same configurations for one.
    """
    files = sorted(file for file in Path(place).rglob("*") if file.is_file())
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest()
    return str(Path(datasets.config.HF_DATASETS_CACHE, digest)) if files else None


def _array_splits(place: str) -> Splits:
    """Return the splits of a folder of arrays; none of anything else."""
    files = Path(place).iterdir() if Path(place).is_dir() else ()
    found = {ARRAY_FILES[file.suffix] for file in files if file.suffix in ARRAY_FILES}
    return {name: read for splits in found for name, read in splits(Path(place)).items()}


def _rows_that_count(table: datasets.Dataset, config: SourceConfig, split: str) -> datasets.Dataset:
    counts = np.array(table.data.column(config.image_column).is_valid())
    for column, wanted in config.where.items():
        if column not in table.column_names:
            raise DataError(
                f"where asks for {column!r}, which is not among the columns {table.column_names} "
                f"of {config.source!r}"
            )
        values = table[column][:]
        counts &= np.array([value == wanted for value in values], bool)
        if wanted not in values:
            found = ", ".join(sorted(set(map(repr, values)))[:10])
            raise DataError(f"where asks for {column} = {wanted!r}, and {config.source!r} has {found}")
    if not counts.any():
        raise DataError(f"split {split!r} of {config.source!r} has no image that counts")
    return table.select(np.flatnonzero(counts))


def _divide(table: datasets.Dataset, config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return the rows that are held out, or all but these; every row where none are."""
    if config.held_out is None:
        return table
    order = share_out(len(table), shares=1, seed=0)[0]
    held_out, others = np.split(order, [round(config.held_out * len(table))])
    if not len(held_out) or not len(others):
        raise DataError(
            f"held_out = {config.held_out} of the {len(table)} images in split {config.train_split!r} of "
            f"{config.source!r} leaves {len(held_out)} to measure against and {len(others)} to learn from"
        )
    return table.select(np.sort(held_out if use == "test" else others))
