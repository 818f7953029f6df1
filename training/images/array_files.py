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
    return {file.stem: partial(_read_npz, file) for file in folder.glob("*.npz")}


def hdf5_splits(folder: Path) -> Splits:
    """Return what reads each split of a folder of one HDF5 file. Raises DataError where that is not so."""
    file, *others = [file for file in folder.iterdir() if ARRAY_FILES.get(file.suffix) is hdf5_splits]
    lists = list(folder.glob("*.txt"))
    if others or not lists:
        raise DataError(f"{file} has to be the only HDF5 file, with lists of ids beside it such as train.txt")
    return {ids.stem: partial(_read_hdf5, file, ids) for ids in lists}


ARRAY_FILES = {".npz": npz_splits, ".hdf5": hdf5_splits, ".h5": hdf5_splits, ".hy": hdf5_splits}


def read_arrays(splits: Splits, split: str) -> datasets.Dataset:
    """Return the rows of a split: train, train[:50%] or train+test. Raises DataError, naming the file."""
    names = [part.partition("[")[0] for part in split.split("+")]
    if unknown := set(names) - splits.keys():
        raise DataError(f"there is no split {sorted(unknown)}; there are {sorted(splits)}")
    tables = {name: splits[name]() for name in names}
    asked = datasets.ReadInstruction.from_spec(split)
    parts = asked.to_absolute({name: len(table) for name, table in tables.items()})
    return datasets.concatenate_datasets(
        [tables[part.splitname].select(range(part.from_, part.to)) for part in parts]
    )


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
        names = ids.read_text().split()
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
    """Return an image as the library keeps those of files; PPM and PGM are its bytes as they are."""
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (1,), (3,)):
        raise DataError(f"{which} is {pixels.dtype} {list(pixels.shape)}, not uint8 [H, W] or [H, W, 1 or 3]")
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels).save(file, "PPM")
    return {"bytes": file.getvalue(), "path": which}
