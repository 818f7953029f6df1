"""Files below a folder: which are images, which are left out and why."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from PIL import Image, UnidentifiedImageError

from training.errors import DataError

log = logging.getLogger(__name__)
NOT_DRAWN = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF", "FITS", "FPX"}
UNREADABLE = frozenset(
    """.heic .heics .heif .hif .jxl .svg .svgz .eps .ai .xcf .kra .exr .hdr .wmf .emf .dcm .raw .cr2 .cr3 .nef .nrw
    .arw .dng .orf .rw2 .raf .pef .srw .sr2 .srf .rwl .iiq .3fr .fff .x3f .erf .mrw .kdc .dcr .mef .mos .gpr
    .fits .fit .fts .jxr .wdp .bpg .djvu .psb .dpx .cin .nii .avif .avifs .jp2 .j2k .webp""".split()  # noqa: SIM905  # a line a suffix
)  # of images, where Pillow does not read them
PARTIAL = frozenset({".part", ".crdownload", ".download", ".partial", ".tmp", ".bak", ".old", ".aria2"})
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
NO_IMAGES = frozenset(
    """.txt .caption .json .jsonl .xml .csv .tsv .md .html .htm .yaml .yml .toml .ini .db .lst .log .url
    .parquet .arrow .npz .npy .h5 .hdf5 .hy .mat .pkl .pt .pth .safetensors .onnx .mp4 .mov .avi .mkv .webm
    .mp3 .wav .pdf .doc .docx .py .sh .lnk""".split()  # noqa: SIM905  # a line a suffix
)
SYSTEM = frozenset(
    """__macosx @eadir #recycle $recycle.bin lost+found .git .ipynb_checkpoints .thumbnails .appledouble
    .spotlight-v100 .fseventsd .trashes .cache .comments .xvpics""".split()  # noqa: SIM905  # a line a name
) | {"system volume information"}
METADATA = re.compile(r"metadata\.(csv|tsv|jsonl|parquet)", re.IGNORECASE)
FILE_NAME = "file_name"  # column of a metadata file, as `datasets` names it


@dataclass
class Listing:
    """Files below a folder: the images in order, metadata files, and what is left out, by its reason."""

    images: dict[Path, os.stat_result] = field(default_factory=dict)
    metadata: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, file: Path) -> None:
        """Note a file that is not read."""
        self.left_out.setdefault(reason, []).append(file)


def list_images(folder: Path) -> Listing:
    """List the images below a folder, following links. Raises DataError for a folder that cannot be read."""
    listing = Listing()
    _list(folder, listing, frozenset())
    listing.images = dict(sorted(listing.images.items()))
    return listing


def has_images(folder: Path) -> bool:
    """Return whether any file below a folder is an image, without listing them all."""
    return next(_any_image(folder, frozenset()), False)


def _list(folder: Path, listing: Listing, around: frozenset[tuple[int, int]]) -> None:
    place = identity(folder.stat())
    if place in around:
        listing.leave_out("links to a folder around them", folder)
        return
    for entry in entries_of(folder):
        path = Path(entry.path)
        if is_hidden(entry.name):
            hidden = entry.name.lower() not in SYSTEM and not entry.name.startswith("._")
            if hidden and (is_folder(entry) or path.suffix.lower() in image_suffixes()):
                listing.leave_out("hidden", path)
        elif is_folder(entry):
            _list(path, listing, around | {place})
        elif METADATA.fullmatch(entry.name):
            listing.metadata.append(path)
        elif reason := _unread(path, entry):
            listing.leave_out(reason, path)
        elif path.is_file() and is_image(path):
            listing.images[path] = entry.stat()


def _any_image(folder: Path, around: frozenset[tuple[int, int]]) -> Iterator[bool]:
    place = identity(folder.stat())
    if place in around:
        return
    folders = []
    for entry in entries_of(folder):
        if is_hidden(entry.name):
            continue
        if is_folder(entry):
            folders.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in {*image_suffixes(), *UNREADABLE} or (
            Path(entry.path).is_file() and is_image(Path(entry.path))
        ):
            yield True
    for one in folders:
        yield from _any_image(one, around | {place})


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, by whatever links; one that links to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, by name. Raises DataError if it may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be read ({error.strerror}): allow it, or move it out of the source"
        ) from error


def _unread(path: Path, entry: os.DirEntry[str]) -> str:
    """Return why a file that may be an image is not read; nothing if it may be read, or is no image."""
    suffix = path.suffix.lower()
    named = suffix in image_suffixes()
    if entry.is_symlink() and not path.exists():
        return "links to nothing" if named or not suffix else ""
    if named and not entry.is_file():
        return "not regular files"
    if suffix in PARTIAL or path.name.endswith("~"):
        inner = Path(path.name.rstrip("~")).with_suffix("") if suffix in PARTIAL else Path(path.name[:-1])
        return "unfinished files or backups" if inner.suffix.lower() in image_suffixes() else ""
    if suffix in ARCHIVES:
        return "archives: unpack them"
    if suffix in UNREADABLE and not named:
        return f"{suffix} cannot be read: convert to PNG or JPEG"
    return ""


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
    except UnidentifiedImageError:
        return False
    except OSError as error:
        if isinstance(error, PermissionError):
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        return False
    except Exception:  # other errors of a format's own reader: it is of that format, and damaged
        return True


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, or of what systems leave beside files."""
    return name.startswith(".") or name.lower() in SYSTEM


def identity(stat: os.stat_result) -> tuple[int, int]:
    """Return what a file is on its disk, by whatever links it is reached."""
    return stat.st_dev, stat.st_ino


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow reads, in lower case."""
    Image.init()
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in _formats()}
    return frozenset(readable - NO_IMAGES)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_DRAWN)


def report(folder: Path, listing: Listing) -> None:
    """Log once, in one line, which files are left out and why."""
    if listing.left_out:
        log_once(f"{folder}: {len(listing.images)} images are read{reasons(listing)}")


@cache
def log_once(line: str) -> None:
    """Log a warning, however often the same files are listed."""
    log.warning("%s", line)


def reasons(listing: Listing) -> str:
    """Return how many files are left out, why, and which."""
    return "".join(
        f"; left out {len(files)} ({reason}): {some([str(file) for file in files])}"
        for reason, files in sorted(listing.left_out.items())
    )


def some(names: list[str], many: int = 5) -> str:
    """Join the first names, and the number of the others."""
    more = f" and {len(names) - many} more" if len(names) > many else ""
    return ", ".join(os.fsencode(name).decode("utf-8", "backslashreplace") for name in names[:many]) + more


def as_called(name: str) -> str:
    """Return a name as people compare it: a letter with its accent is one, as macOS writes it or as others do."""
    return composed(name).strip()


def composed(name: str) -> str:
    """Return a name whose letters and accents are one character each, where there is one."""
    return unicodedata.normalize("NFC", name)


def check_encoding(file: Path) -> None:
    """Raise DataError for text that is not UTF-8, naming it."""
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    if b"\0" in content:  # UTF-16 without a mark
        raise DataError(f"{file} is not UTF-8 (byte {content.index(0)}): save it as UTF-8")


def read_metadata(listing: Listing, folder: Path) -> dict[str, list[Any]]:
    """Return the columns of metadata files, a value or None for each image. Raises DataError."""
    rows: dict[Path, Mapping[str, Any]] = {}
    twice = []
    for file in listing.metadata:
        table = _read_table(file)
        if FILE_NAME not in table.column_names:
            log_once(f"{file} has no column {FILE_NAME!r} but {table.column_names}, and is not read")
            continue
        for row in table.to_pylist():
            path = Path(os.path.normpath(file.parent / Path(str(row.pop(FILE_NAME)).replace("\\", "/"))))
            if rows.get(path, row) != row:
                twice.append(str(path))
            rows[path] = row
    if twice:
        log_once(f"{folder}: metadata say different things of {len(twice)} images, the last counts: {some(twice)}")
    inside = [path for path in rows if path.is_relative_to(folder)]
    if lost := [str(path) for path in inside if path not in listing.images]:
        log_once(f"{folder}: metadata name {len(lost)} files that are no images there: {some(lost)}")
    names = dict.fromkeys(name for path in inside for name in rows[path] if name != "image")
    return {name: [rows.get(path, {}).get(name) for path in listing.images] for name in names}


def _read_table(file: Path) -> pyarrow.Table:
    """Return a metadata file as a table. Raises DataError."""
    try:
        if file.suffix.lower() != ".parquet":
            check_encoding(file)
        return METADATA_READERS[file.suffix.lower()](file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


METADATA_READERS: dict[str, Callable[[Path], pyarrow.Table]] = {
    ".csv": pyarrow.csv.read_csv,
    ".tsv": lambda file: pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(delimiter="\t")),
    ".jsonl": pyarrow.json.read_json,
    ".parquet": pyarrow.parquet.read_table,
}
