"""Metadata files of a folder of images: columns by the path of each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from training.errors import DataError
from training.images.listing import Listing, log_once, some

FILE_NAME = "file_name"  # column of a metadata file, as `datasets` names it


def read_metadata(listing: Listing, folder: Path) -> dict[str, list[Any]]:
    """Return the columns of metadata files, a value or None for each image. Raises DataError."""
    rows: dict[Path, Mapping[str, Any]] = {}
    for file in listing.metadata:
        try:
            table = METADATA_READERS[file.suffix.lower()](file)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        if FILE_NAME not in table.column_names:
            log_once(f"{file} has no column {FILE_NAME!r} and is not read")
            continue
        for row in table.to_pylist():
            name = Path(str(row.pop(FILE_NAME)).replace("\\", "/"))
            rows[Path(os.path.normpath(file.parent / name))] = row
    inside = [path for path in rows if path.is_relative_to(folder)]
    if lost := [str(path) for path in inside if path not in listing.images]:
        log_once(f"{folder}: metadata name {len(lost)} files that are no images there: {some(lost)}")
    names = dict.fromkeys(name for path in inside for name in rows[path] if name != "image")
    return {name: [rows.get(path, {}).get(name) for path in listing.images] for name in names}


METADATA_READERS: dict[str, Callable[[Path], pyarrow.Table]] = {
    ".csv": pyarrow.csv.read_csv,
    ".tsv": lambda file: pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(delimiter="\t")),
    ".jsonl": pyarrow.json.read_json,
    ".parquet": pyarrow.parquet.read_table,
}
