"""Images of a source: which files are read, decoding by several threads, fitting, and the cache.

The cache lies beside that of `datasets`. One of its files holds the images of one table, identified by their bytes,
as one domain fits them, so that another run, a resumed one and another seed decode nothing again.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import PIL
import pyarrow
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageMode, ImageOps, UnidentifiedImageError

from training.config.data import DomainConfig
from training.errors import DataError, describe_causes
from training.files import write_whole

EXCLUDED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF", "FITS", "FPX"}
NO_IMAGES = frozenset(
    """.txt .caption .json .jsonl .xml .csv .tsv .md .html .htm .yaml .yml .toml .ini .db .lst .log .url
    .parquet .arrow .npz .npy .h5 .hdf5 .hy .mat .pkl .pt .pth .safetensors .onnx .mp4 .mov .avi .mkv .webm
    .mp3 .wav .pdf .doc .docx .py .sh .lnk""".split()  # noqa: SIM905  # a line a suffix
)


def is_image(path: Path) -> bool:
    """Return whether Pillow reads a file, by its suffix or, if that is unknown, its first bytes."""
    suffix = path.suffix.lower()
    if suffix in image_suffixes():
        return True
    if suffix in NO_IMAGES:
        return False
    try:  # without a known suffix the first bytes count
        with Image.open(path, formats=_formats()):
            return True
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except OSError:  # as of no image
        return False
    except Exception:  # other errors of a format's own reader: it is of that format, and damaged
        return True


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow reads, in lower case."""
    Image.init()
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in _formats()}
    return frozenset(readable - NO_IMAGES)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in EXCLUDED_FORMATS)


MODES = {1: "L", 3: "RGB"}
BYTES = ("|u1", "|b1")  # numpy's names of the values of a mode: bytes and bits
PHOTOMETRIC = 0x0106  # TIFF's tag
FEW_BITS = {"L;2": 85, "L;4": 17}  # of a grey PNG, whose levels Pillow multiplies, but not the transparent one


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of 16 bits; Pillow has PGM and PNG of 16 bits in 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))


def in_mode(image: Image.Image, channels: int) -> Image.Image:
    """Return an image in grey or colour; transparency is composited on black, 0..65535 scaled to 0..255.

    Raises DataError for floats and whole numbers of 32 bits, whose range is unknown.
    """
    if is_deep(image):
        levels = np.asarray(image, np.float32)
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is 0, which Pillow inverts at 8 bits alone
            levels = 65535 - levels
        seen = levels * (levels != image.info.get("transparency", -1))
        image = Image.fromarray(np.rint(seen * (255 / 65535)).astype(np.uint8))
    if image.mode == "LAB":  # which becomes grey by way of RGB alone
        image = image.convert("RGB")
    if ImageMode.getmode(image.mode).typestr not in BYTES:
        raise DataError(f"holds values of mode {image.mode}, not bytes: save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert(MODES[channels])


def fit(image: Image.Image, size: tuple[int, int], domain: DomainConfig) -> NDArray[np.uint8]:
    """Return an image as uint8 [H, W, C] of that height and width. Raises DataError, as `in_mode` does."""
    height, width = size
    image = ImageOps.expand(in_mode(image, domain.channels), domain.margin)
    if domain.crop is None:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    else:
        border = (1 - domain.crop) / 2
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC, border)
    return np.asarray(image, np.uint8).reshape(height, width, domain.channels)


ROWS_AT_ONCE = 1000
PAGES = "pages"  # or frames of a file, in the info of its image
FLAT = 1  # greatest difference of levels in an image that shows nothing
log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
Fingerprints = list[bytes | None]
Item = TypeVar("Item")
Result = TypeVar("Result")
Scalar = TypeVar("Scalar", bound=np.generic)
CACHE_LIMIT = 20 * 2**30  # bytes; beyond it the least recently used files are removed
LAYOUT = 2  # increased when the same images give other pixels
WIDTH = 16  # bytes of a fingerprint


def read_cells(table: datasets.Dataset, column: str) -> Iterator[list[dict[str, Any] | None]]:
    """Read a column of encoded images in batches of rows; single rows are many times slower."""
    column_alone = table.select_columns(column)
    for first in range(0, len(table), ROWS_AT_ONCE):
        yield column_alone[first : first + ROWS_AT_ONCE][column]


def holds_images(table: datasets.Dataset, column: str) -> bool:
    """Return whether a column holds encoded images, or the files that do."""
    kind = table.data.column(column).type
    return pyarrow.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def fingerprint(cell: dict[str, Any]) -> bytes:
    """Return a digest of a row's encoded image, whatever its path."""
    try:
        stored = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    except OSError as error:
        raise DataError(f"image {cell['path']} cannot be read: {error}") from error
    return hashlib.blake2b(stored, digest_size=16).digest()


def decode(cell: dict[str, Any]) -> Image.Image:
    """Return the image of a row, upright. Raises DataError, which does not name the image."""
    Image.MAX_IMAGE_PIXELS = None  # scans may be larger than Pillow's limit against attacks
    try:
        content = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
        with Image.open(io.BytesIO(content)) as image:  # by name, Pillow maps a turned TIFF wrongly
            pages = _count_pages(image)
            if "transparency" in image.info and (bits := image.tile[0][3]) in FEW_BITS:
                image.info["transparency"] *= FEW_BITS[bits]
            image.load()
            upright = _upright(image)
            upright.info[PAGES] = pages
            return upright
    except UnidentifiedImageError as error:
        raise DataError("cannot be read: it is empty, or in no format of images that is known") from error
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise DataError(f"cannot be read: {describe_causes(error)}") from error


def _count_pages(image: Image.Image) -> int:
    """Return the number of pages or frames of a file; 1 if those behind the first are damaged, or smaller copies."""
    with suppress(Exception):
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    return 1


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned by its EXIF orientation, if that can be read."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged data beside an image that is not
        return image
    upright.format = image.format
    return upright


def fingerprints(table: datasets.Dataset, column: str) -> Fingerprints:
    """Return a digest of each row's encoded image, None without one; those of files are cached. Raises DataError."""
    found: Fingerprints = []
    for cells in read_cells(table.cast_column(column, datasets.Image(decode=False)), column):
        cells = [cell if cell != {"bytes": None, "path": None} else None for cell in cells]
        paths = [cell["path"] for cell in cells if cell and cell["bytes"] is None]
        kept = iter(cached("fingerprints", _states(paths), partial(_read_fingerprints, paths)) if paths else ())
        for cell in cells:
            if cell is None:
                found.append(None)
            else:
                found.append(next(kept).tobytes() if cell["bytes"] is None else fingerprint(cell))
    return found


def decode_rows(table: datasets.Dataset, marks: Fingerprints, domain: DomainConfig, size: tuple[int, int]) -> Pixels:
    """Return the images of a table's rows, fitted: uint8 [N, H, W, C], from the cache if they are in it.

    `marks` are the fingerprints of the images. Raises DataError, naming every image that cannot be read.
    """
    fitting = [LAYOUT, PIL.__version__, size, domain.channels, domain.margin, domain.crop]
    known = b"".join(one or b"" for one in marks)
    return cached("images", json.dumps(fitting).encode() + known, lambda: _decode(table, domain, size))


def _decode(table: datasets.Dataset, domain: DomainConfig, size: tuple[int, int]) -> Pixels:
    decoder = _Decoder(np.empty((len(table), *size, domain.channels), np.uint8), domain, size)
    damaged: list[tuple[str, DataError]] = []
    rows = itertools.count()
    for cells in read_cells(table, domain.image_column):
        damaged += filter(None, _in_threads(decoder, zip(cells, rows, strict=False)))
    if damaged:
        raise damaged_images(damaged, domain)
    decoder.warn()
    return decoder.pixels


def damaged_images(damaged: list[tuple[str, DataError]], domain: DomainConfig) -> DataError:
    """Return the error that names all images that cannot be read."""
    (first, error), *others = damaged
    more = f"; nor can {len(others)} others: {', '.join(name for name, _ in others)}" if others else ""
    return DataError(f"image {first} of {domain.source!r} {error}{more}; mend or remove {'them' if others else 'it'}")


class _Decoder:
    """Decodes images into the rows of `pixels`, and counts those that lose pages or depth."""

    def __init__(self, pixels: Pixels, domain: DomainConfig, size: tuple[int, int]) -> None:
        self.pixels = pixels
        self._domain, self._size = domain, size
        self._maxima: list[float] = []  # of grey images of 16 bits
        self._paged: list[str] = []  # files with several pages or frames

    def __call__(self, numbered: tuple[dict[str, Any] | None, int]) -> tuple[str, DataError] | None:
        """Decode a cell into its row. Return the name and the error of a damaged image."""
        cell, row = numbered
        assert cell, "rows without an image do not count"
        try:
            image = decode(cell)
            if image.info.get(PAGES, 1) > 1:
                self._paged.append(str(cell["path"]))
            if is_deep(image):
                self._maxima.append(float(np.asarray(image).max()))
            self.pixels[row] = fit(image, self._size, self._domain)
        except Exception as error:  # of a kind of image that Pillow opens and cannot convert, too
            message = error if isinstance(error, DataError) else DataError(f"cannot be read: {describe_causes(error)}")
            return str(cell["path"] or f"number {row}"), message
        return None

    def warn(self) -> None:
        """Log how many images lost pages or depth, and how many show nothing."""
        source, paged = self._domain.source, ", ".join(sorted(self._paged)[:5])
        if paged:
            log.warning(
                "%s: of %d files with several pages or frames the first is read: %s", source, len(self._paged), paged
            )
        if self._maxima:
            log.warning(
                "%s: %d grey images of 16 bits are scaled from 0..65535 to 0..255; their greatest value is %d",
                source,
                len(self._maxima),
                max(self._maxima),
            )
        values = self.pixels.reshape(len(self.pixels), -1)
        if flat := int((values.max(1) - values.min(1) <= FLAT).sum()):
            why = "what is transparent lies on black, where dark ink is not seen, and masks of 0 and 1 are black"
            log.warning("%s: %d of %d images are of one level everywhere; %s", source, flat, len(values), why)


def _read_fingerprints(paths: list[str]) -> Pixels:
    found = _in_threads(lambda path: fingerprint({"bytes": None, "path": path}), paths)
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, WIDTH)


def file_state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does, or swaps its name with another: inode and ctime as well."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _states(paths: list[str]) -> bytes:
    try:
        stats = [(path, file_state(Path(path))) for path in paths]
    except OSError as error:
        raise DataError(f"image {error.filename} cannot be read: {error.strerror}") from error
    return repr(stats).encode()


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Process items in as many threads as there are processors: Pillow decodes outside the interpreter's lock."""
    Image.init()  # not in several threads at once
    with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
        return list(pool.map(work, items))


def cached(kind: str, key: bytes, make: Callable[[], NDArray[Scalar]]) -> NDArray[Scalar]:
    """Return an array from the cache, or compute and store it."""
    folder = Path(datasets.config.HF_DATASETS_CACHE, "cogan")
    file = folder / f"{kind}-{hashlib.blake2b(key, digest_size=16).hexdigest()}.npy"
    try:
        kept: NDArray[Scalar] = np.load(file, mmap_mode="c")
        os.utime(file)
    except (OSError, ValueError, EOFError):
        made = make()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, lambda aside: _save(made, aside))
            _trim(folder)
        except Exception as error:
            _warn(f"decoded images or features are not kept: {error}")
        return made
    return kept


@cache
def _warn(line: str) -> None:
    """Log a warning, once."""
    log.warning(line)


def _save(array: NDArray[Any], file: Path) -> None:
    with file.open("wb") as handle:
        np.save(handle, array)


def _trim(folder: Path) -> None:
    """Remove the least recently used files until the rest is within the limit."""
    files: list[tuple[float, int, Path]] = []
    for path in folder.glob("*.npy"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # removed by another process
            continue
        files.append((stat.st_mtime, stat.st_size, path))
    room = CACHE_LIMIT
    for _, size, path in sorted(files, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)
