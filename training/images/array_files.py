"""Images in arrays: folders of .npz or HDF5 files, as tables of the `datasets` library.

A folder of `train.npz` and `test.npz` has those splits; each array of a file is a column. A folder of an
HDF5 file and lists of ids, which DCGAN-Tensorflow asks for, has a split for each list, `id.txt` or
`train.txt`; the file has a group for each id, and each of its members is a column. Rows of two or more
dimensions are images, uint8 [H, W] or [H, W, C], C 1 for grey and 3 for RGB; all others are values.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import datasets
import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import DataError

Splits = dict[str, Callable[[], datasets.Dataset]]


def npz_splits(folder: Path) -> Splits:
    """Return what reads each split of a folder of .npz files."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".npz")
    return {file.stem: partial(_read_npz, file) for file in files}


def hdf5_splits(folder: Path) -> Splits:
    """Return what reads each split of a folder of one HDF5 file. Raises DataError where that is not so."""
    file, *others = [file for file in folder.iterdir() if file.suffix.lower() in HDF5]
    lists = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt")
    if others or not lists:
        raise DataError(f"{file} has to be the only HDF5 file, with lists of ids beside it such as train.txt")
    return {ids.stem: partial(_read_hdf5, file, ids) for ids in lists}


HDF5 = (".hdf5", ".h5", ".hy")
ARRAY_FILES = {".npz": npz_splits, **dict.fromkeys(HDF5, hdf5_splits)}


def array_splits(folder: Path) -> Splits:
    """Return the splits of a folder of arrays; none of anything else."""
    suffixes = sorted({file.suffix.lower() for file in folder.iterdir()} & ARRAY_FILES.keys())
    readers = {ARRAY_FILES[suffix]: None for suffix in suffixes}
    return {name: read for splits in readers for name, read in splits(folder).items()}


def arrays_named(folder: Path, split: str) -> bool:
    """Return whether a folder has arrays of that split, among whatever else."""
    has_hdf5 = any(file.suffix.lower() in HDF5 for file in folder.iterdir())
    return (folder / f"{split}.npz").is_file() or (has_hdf5 and (folder / f"{split}.txt").is_file())


def split_names(split: str) -> list[str]:
    """Return the names in train, train[:50%] or train+test."""
    return [_parts_of(part)[0] for part in split.split("+")]


def _parts_of(part: str) -> tuple[str, str]:
    name, bracket, rest = part.strip().partition("[")
    return name.strip(), bracket + rest


def read_splits(splits: Splits, split: str) -> datasets.Dataset:
    """Return the rows of a split: train, train[:50%] or train+test. Raises DataError, naming the file."""
    if split in splits:  # whatever its name means
        return splits[split]()
    if unknown := set(split_names(split)) - splits.keys():
        raise DataError(f"there is no split {sorted(unknown)}; there are {sorted(splits)}")
    tables = []
    for name, rows in map(_parts_of, split.split("+")):
        table = splits[name]()
        (part,) = datasets.ReadInstruction.from_spec(f"rows{rows}").to_absolute({"rows": len(table)})
        first, last = part.from_ or 0, len(table) if part.to is None else part.to
        tables.append(table if not rows else table.select(range(first, last)))
    return tables[0] if len(tables) == 1 else datasets.concatenate_datasets(tables)


def _read_npz(file: Path) -> datasets.Dataset:
    try:
        with file.open("rb") as handle, np.load(handle) as arrays:
            columns = {name: _column(arrays[name], f"{file}: {name}") for name in arrays.files}
    except (OSError, EOFError, ValueError, TypeError, BadZipFile) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return _table(columns, file)


def _read_hdf5(file: Path, ids: Path) -> datasets.Dataset:
    rows: dict[str, list[Any]] = {}
    try:
        names = ids.read_text(encoding="utf-8-sig").split()
        if not names:
            raise DataError(f"{ids} names no image")
        with h5py.File(file) as groups:
            for name in names:
                for member, value in groups[name].items():
                    text = h5py.check_string_dtype(value.dtype) is not None
                    rows.setdefault(member, []).append(np.asarray((value.asstr() if text else value)[()]))
    except (OSError, KeyError, AttributeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return _table({name: _column(values, f"{file}: {name}") for name, values in rows.items()}, file)


def _table(columns: dict[str, list[Any]], file: Path) -> datasets.Dataset:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{file} has columns of different lengths: {lengths}")
    return datasets.Dataset.from_dict(columns)


def _column(rows: Iterable[NDArray[Any]], which: str) -> list[Any]:
    return [_encoded(row, f"{which} {i}") if row.ndim > 1 else row.tolist() for i, row in enumerate(rows)]


def _encoded(pixels: NDArray[Any], which: str) -> dict[str, object]:
    """Return an image as the library keeps those of files; PPM and PGM are its bytes as they are.

    Of 16 bits, grey keeps all and colour the upper 8, as images of files do.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise DataError(f"{which} is {pixels.dtype} {list(pixels.shape)}, not uint8 or uint16 [H, W] or [H, W, 1 or 3]")
    if pixels.shape[2:] == (3,) and pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels).save(file, "PPM")
    return {"bytes": file.getvalue(), "path": which}
