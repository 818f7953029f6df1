"""Cells of a column of images: read in parts, known by their bytes, decoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from PIL import ExifTags, Image, ImageOps

from training.errors import DataError, describe_causes

ROWS_AT_ONCE = 1000
PAGES = "pages"  # of a file, in the info of its image


def read_cells(table: datasets.Dataset, column: str) -> Iterator[list[dict[str, Any] | None]]:
    """Read a column of images, still encoded, in parts of some rows: one by one takes many times as long."""
    column_alone = table.select_columns(column)
    for first in range(0, len(table), ROWS_AT_ONCE):
        yield column_alone[first : first + ROWS_AT_ONCE][column]


def fingerprint(cell: dict[str, Any]) -> bytes:
    """Return a digest of a row's image as it is stored: the same file has the same, wherever it lies."""
    try:
        stored = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    except OSError as error:
        raise DataError(f"image {cell['path']} cannot be read: {error}") from error
    return hashlib.blake2b(stored, digest_size=16).digest()


def decode(cell: dict[str, Any]) -> Image.Image:
    """Return the image of a row, upright. Raises DataError, which leaves it to others to name the image."""
    Image.MAX_IMAGE_PIXELS = None  # a scan may have more than what Pillow takes for an attack
    try:
        with Image.open(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            image.load()
            upright = _upright(image)
            upright.info[PAGES] = pages
            return upright
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise DataError(f"cannot be read: {describe_causes(error)}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Return an image as its EXIF data say it is to be held, if they can be read."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged data beside an image that is not
        return image
    upright.format = image.format
    return upright
