"""Files below a folder: which of them are images, which are not read and why, and metadata beside them.

Links are followed. Every image file is read, or reported in one log line with the reason.
"""

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

from training.data.preprocess import image_suffixes, is_image
from training.errors import DataError

log = logging.getLogger(__name__)
UNREADABLE = frozenset(
    """.heic .heics .heif .hif .jxl .svg .svgz .eps .ai .xcf .kra .exr .hdr .wmf .emf .dcm .raw .cr2 .cr3 .nef .nrw
    .arw .dng .orf .rw2 .raf .pef .srw .sr2 .srf .rwl .iiq .3fr .fff .x3f .erf .mrw .kdc .dcr .mef .mos .gpr
    .fits .fit .fts .jxr .wdp .bpg .djvu .psb .dpx .cin .nii .avif .avifs .jp2 .j2k .webp""".split()  # noqa: SIM905  # a line a suffix
)  # of images, where Pillow does not read them
BACKUP = re.compile(  # of IMG_0.jpg.part, IMG_0.jpg~ or exiftool's IMG_0.jpg_original: the image's name
    r"(.+?)((\.~\d+)?~|_original|\.(part|crdownload|download|filepart|partial|te?mp|bak|old|orig|aria2))", re.IGNORECASE
)
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
SYSTEM = frozenset(
    """__macosx @eadir lost+found .git .ipynb_checkpoints .thumbnails .appledouble
    .spotlight-v100 .fseventsd .trashes .cache .comments .xvpics""".split()  # noqa: SIM905  # a line a name
) | {"system volume information"}
BINS = re.compile(r"[@#]recycle|\$recycle\.bin|recycler|@recently-snapshot|#snapshot|found\.\d{3}", re.IGNORECASE)
METADATA = re.compile(r"metadata\.(csv|tsv|jsonl|parquet)", re.IGNORECASE)
FILE_NAME = "file_name"  # column of a metadata file, as `datasets` names it


@dataclass
class Listing:
    """Files below a folder: the images in order, metadata files, and files that are not read, by reason."""

    images: dict[Path, os.stat_result] = field(default_factory=dict)
    metadata: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, file: Path) -> None:
        """Note a file that is not read."""
        self.left_out.setdefault(reason, []).append(file)


def list_images(folder: Path) -> Listing:
    """List the images below a folder, following links. Raises DataError for a folder that cannot be read."""
    listing = Listing()
    for path, entry in _walk(folder):
        if entry is None:
            listing.leave_out("links to a folder around them", path)
        elif is_hidden(path.name):
            if reason := _hidden(path, entry):
                listing.leave_out(reason, path)
        elif METADATA.fullmatch(path.name):
            listing.metadata.append(path)
        elif reason := _unread(path, entry):
            listing.leave_out(reason, path)
        elif path.is_file() and is_image(path):
            listing.images[path] = entry.stat()
    listing.images = dict(sorted(listing.images.items()))
    for files in (listing.metadata, *listing.left_out.values()):
        files.sort()
    return listing


def has_images(folder: Path) -> bool:
    """Return whether any file below a folder is an image, without listing them all."""
    suffixes = {*image_suffixes(), *UNREADABLE}
    visible = (path for path, entry in _walk(folder) if entry and not is_hidden(path.name))
    return any(path.suffix.lower() in suffixes or (path.is_file() and is_image(path)) for path in visible)


Entries = Iterator[tuple[Path, os.DirEntry[str] | None]]


def _walk(folder: Path, around: frozenset[tuple[int, int]] = frozenset()) -> Entries:
    """Yield the files below a folder, following links, its own first, and hidden files and folders.

    A link to a folder around it is yielded without an entry, and not followed.
    """
    place = identity(folder.stat())
    if place in around:
        yield folder, None
        return
    folders = []
    for entry in entries_of(folder):
        if is_hidden(entry.name) or not is_folder(entry):
            yield Path(entry.path), entry
        else:
            folders.append(Path(entry.path))
    for inner in folders:
        yield from _walk(inner, around | {place})


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, by whatever links; one that links to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name. Raises DataError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be read ({error.strerror}): allow it, or move it out of the source"
        ) from error


def _hidden(path: Path, entry: os.DirEntry[str]) -> str:
    """Return why a hidden folder or image is not read; empty if it is the system's own, or no image."""
    if BINS.fullmatch(path.name):
        return "deleted files, snapshots and fragments"
    if path.name.lower() in SYSTEM or path.name.startswith("._"):
        return ""
    if path.suffix.lower() == ".icloud" and Path(path.stem).suffix.lower() in image_suffixes() | UNREADABLE:
        return "in iCloud alone: download them"
    return "hidden" if is_folder(entry) or path.suffix.lower() in image_suffixes() else ""


def _unread(path: Path, entry: os.DirEntry[str]) -> str:
    """Return why a possible image is not read; empty if it is read, or is no image."""
    suffix = path.suffix.lower()
    named = suffix in image_suffixes()
    if entry.is_symlink() and not path.exists():
        return "links to nothing" if named or not suffix else ""
    if named and not entry.is_file():
        return "not regular files"
    if backup := BACKUP.fullmatch(path.name):
        return "unfinished files or backups" if Path(backup[1]).suffix.lower() in image_suffixes() else ""
    if suffix == ".thm":
        return "thumbnails of videos"
    if suffix in ARCHIVES:
        return "archives: unpack them"
    if suffix in UNREADABLE and not named:
        return f"{suffix} cannot be read: convert to PNG or JPEG"
    return ""


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, or one that operating systems create."""
    return name.startswith(".") or name.lower() in SYSTEM or BINS.fullmatch(name) is not None


def identity(stat: os.stat_result) -> tuple[int, int]:
    """Return device and inode of a file, the same for all links to it."""
    return stat.st_dev, stat.st_ino


def report(folder: Path, listing: Listing) -> None:
    """Log once, in one line, which files are left out and why."""
    if listing.left_out:
        log_once(f"{folder}: {len(listing.images)} images are read{reasons(listing)}")


@cache
def log_once(line: str) -> None:
    """Log a warning once, however often the same files are listed."""
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
    real = cache(os.path.realpath)  # of a file's folder, which paths may reach by links
    rows: dict[Path, Mapping[str, Any]] = {}
    twice = []
    for file in listing.metadata:
        table = _read_table(file)
        if FILE_NAME not in table.column_names:
            log_once(f"{file} has no column {FILE_NAME!r} but {table.column_names}, and is not read")
            continue
        for row in table.to_pylist():
            path = file.parent / str(row.pop(FILE_NAME)).replace("\\", "/")
            path = Path(real(path.parent), path.name)
            if rows.get(path, row) != row:
                twice.append(str(path))
            rows[path] = row
    if twice:
        log_once(f"{folder}: metadata say different things of {len(twice)} images, the last counts: {some(twice)}")
    images = [Path(real(path.parent), path.name) for path in listing.images]
    others, inside = rows.keys() - set(images), Path(real(folder))
    if lost := sorted(str(path) for path in others if path.is_relative_to(inside) or not os.path.lexists(path)):
        start = "paths start at the folder of the metadata file"
        log_once(f"{folder}: metadata name {len(lost)} files that are no images there; {start}: {some(lost)}")
    names = dict.fromkeys(name for path in rows if path not in others for name in rows[path] if name != "image")
    return {name: [rows.get(path, {}).get(name) for path in images] for name in names}


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
