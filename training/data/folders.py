"""Folders of images: which files are read, and splits, classes and metadata.

The first folder below a source names the split, the next one the class. A source without folders of splits is one
split. Links are followed. Every image file is read, or reported in one log line with the reason.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from training.data.preprocess import image_suffixes, is_image
from training.errors import DataError, MissingSplitError

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


Splits = dict[str, Callable[[], datasets.Dataset]]  # by name, what reads each
WHOLE = "train"  # split of a source without split folders
ALIASES = {"train": ("training",), "test": ("testing",), "validation": ("valid", "val", "dev")}
SPLIT_NAMES = "train|training|test|testing|val|valid|validation|dev|eval|evaluation"
SPLIT_FOLDER = re.compile(rf"(?i:{SPLIT_NAMES})[-_. ]?([A-Z]|\d+)?")  # train, Test, trainA, val2017
SPLIT_IN_NAME = re.compile(  # of train_images, real_train
    r"(?i)^(train|test|val|valid|validation|dev|eval)(ing|uation)?(?=[-_. ]|set|image|data)"
    r"|(?<=[-_. ])(train|test|val|valid|validation|dev|eval)(ing|uation)?$"
)
MAX_NUMBERED = 1000  # names that are numbers below this are the class numbers


def meant(name: str, words: Mapping[str, Collection[str]] = ALIASES) -> str:
    """Return the split that a name stands for: train for Training."""
    called = name.casefold()
    return next((split for split, aliases in words.items() if called in aliases), called)


class ImageFolder:
    """A source of images in folders."""

    def __init__(self, root: Path, splits: Sequence[str] = (), others: Sequence[Path] = ()) -> None:
        """Find the splits below a source; images are listed when a split is read.

        Classes are numbered alike in `splits`, all that are read of it, and in `others`, folders of their own.
        """
        self.root, self._numbered, self._others = root, splits, others
        visible = [entry for entry in entries_of(root) if not is_hidden(entry.name)]
        self.folders = {entry.name: Path(entry.path) for entry in visible if is_folder(entry)}
        self.lies_flat = any((path := Path(entry.path)).is_file() and is_image(path) for entry in visible)
        self._broken = [entry.name for entry in visible if entry.is_symlink() and not Path(entry.path).exists()]

    @property
    def split_folders(self) -> list[str]:
        """Folders that are called as splits are: train, or train_images beside test_images."""
        parts = {name: match for name in self.folders if (match := SPLIT_IN_NAME.search(name))}
        rests = {name: (name[: one.start()].casefold(), name[one.end() :].casefold()) for name, one in parts.items()}
        learned = {rests[name] for name, one in parts.items() if one[0].casefold().startswith("train")}
        measured = {rests[name] for name, one in parts.items() if not one[0].casefold().startswith("train")}
        twins = [name for name in rests if rests[name] in learned & measured]
        return [name for name in self.folders if SPLIT_FOLDER.fullmatch(name) or name in twins]

    @property
    def is_one_split(self) -> bool:
        """True if no folder has the name of a split, so that all images are of one split."""
        return not self.split_folders

    def find(self, name: str) -> Path | None:
        """Return the folder of a split, if it has images: of that name, of whatever case, or of an alias."""
        if name in self.folders:
            candidates = [name]
        else:
            wanted = (name.casefold(), *ALIASES.get(name.casefold(), ()))
            candidates = sorted(
                (one for one in self.folders if one.casefold() in wanted), key=lambda one: wanted.index(one.casefold())
            )
        if len({one.casefold() for one in candidates}) < len(candidates):
            raise DataError(f"{self.root} has folders {candidates}: name one of them exactly")
        found = next((self.folders[one] for one in candidates), None)
        if found is None and self.is_one_split and name == WHOLE:
            self._check_depth()
            return self.root
        return found if found and has_images(found) else None

    def _check_depth(self) -> None:
        """Raise DataError if the folders of splits lie one level deeper."""
        for folder in self.folders.values():
            splits = ImageFolder(folder).split_folders
            if len({name.casefold().startswith("train") for name in splits}) == 2:
                raise DataError(f"{folder} has folders {splits}, which are called as splits: name it as source")

    def splits(self, names: list[str], other: list[str]) -> Splits:
        """Return the function that reads each split. Raises DataError if one is missing, or shares a file with another.

        `other` names the splits of the other use, measuring or training, which must not share files with these.
        """
        folders = {name: self.find(name) for name in names}
        for name, folder in folders.items():
            if folder is None:
                kind = DataError if name in self._broken else MissingSplitError
                raise kind(self.missing(name))
        found = {name: folder for name, folder in folders.items() if folder}
        self._report_others(found)
        against = {folder for name in other if (folder := self.find(name)) and folder not in found.values()}
        for folder in found.values():
            self._check_disjoint(folder, against)
        return {name: partial(self.read, folder) for name, folder in found.items()}

    def missing(self, name: str) -> str:
        """Return the error for a missing split: which there are, and how to choose."""
        named = sorted(self.folders)
        if self._broken:
            return f"there is no folder {name!r}; {self._broken} in {self.root} are links to nothing"
        if not named or self.is_one_split:
            self._check_depth()
            message = f"it has no folder {name!r}, so that all of its images are of the split {WHOLE!r}"
            twin = self.root.name.replace("train", "test", 1)
            if twin != self.root.name and (self.root.parent / twin).is_dir():
                message += (
                    f"; source = '{self.root.parent}' with train_split = '{self.root.name}' and "
                    f"test_split = '{twin}' has both"
                )
            return message
        called = [one for one in named if name.casefold() in one.casefold()]
        others = [one for one in named if ("train" in one.casefold()) == (name != "test")]
        example = next(iter(called or others), named[0])
        return (
            f"it has no folder {name!r} with images; its folders are {named}: train_split and test_split "
            f"choose among them, as in {'test' if name == 'test' else 'train'}_split = '{example}'"
        )

    def _report_others(self, found: Mapping[str, Path]) -> None:
        """Log which images are in no split, if the splits have the usual names."""
        if self.root in found.values() or not all(SPLIT_FOLDER.fullmatch(name) for name in found):
            return
        others = [
            name
            for name, folder in self.folders.items()
            if folder not in found.values()
            and (not SPLIT_FOLDER.fullmatch(name) or meant(name) in map(meant, found))
            and has_images(folder)
        ]
        if self.lies_flat or others:
            where = [f"folders {sorted(others)}"] * bool(others) + ["the source itself"] * self.lies_flat
            log_once(f"{self.root}: images in {' and '.join(where)} are in no split and are not read")

    def _check_disjoint(self, folder: Path, others: set[Path]) -> None:
        """Raise DataError if a split links to files of another; log files that both link to."""
        files = list_images(folder).images.items() if others else ()
        known = {identity(stat): path for path, stat in files if stat.st_ino}
        for other in others:
            both = [
                (twin, path) for path, stat in list_images(other).images.items() if (twin := known.get(identity(stat)))
            ]
            for twin, path in both:
                if _is_beyond(twin, folder, other) or _is_beyond(path, other, folder):
                    raise DataError(
                        f"{twin} and {path} are one file by a link, and no image is in two splits: remove "
                        "the link; held_out measures against a share of the training images"
                    )
            if both:
                log_once(
                    f"{self.root}: {len(both)} images of {folder.name!r} are in {other.name!r} too, by "
                    f"links: {some([str(twin) for twin, _ in both])}"
                )

    def read(self, folder: Path | None = None) -> datasets.Dataset:
        """Return the images of a split, or all, as a table: image, label if there are classes, columns of metadata."""
        folder = folder or self.root
        listing = list_images(folder)
        if folder != self.root:
            listing.metadata += [
                path for entry in entries_of(self.root) if METADATA.fullmatch((path := Path(entry.path)).name)
            ]
        report(folder, listing)
        if not listing.images:
            raise DataError(f"{folder} has no image that can be read{reasons(listing)}")
        columns: dict[str, list[Any]] = {"image": [_cell(path) for path in listing.images]}
        features = {"image": datasets.Image(decode=False)}
        metadata = read_metadata(listing, folder)
        columns |= metadata
        if "label" not in metadata and (names := self._class_names(folder)):
            numbers = {name: number for number, aliases in enumerate(names) for name in aliases}
            classes = [next(iter(path.relative_to(folder).parts[:-1]), None) for path in listing.images]
            columns["label"] = [None if one is None else numbers[one] for one in classes]
            features["label"] = datasets.ClassLabel(names=[aliases[0] for aliases in names])
        try:
            inferred = datasets.Dataset.from_dict(metadata).features if metadata else {}
            return datasets.Dataset.from_dict(columns, datasets.Features(inferred | features))
        except (pyarrow.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"metadata in {folder}: {error}") from error

    def _class_names(self, folder: Path) -> list[list[str]]:
        """Return the names of each class, in all splits, if there are folders of classes; 07 and 7 are the class 7."""
        named = [self.folders[name] for name in self.split_folders]
        asked = [place for name in self._numbered if (place := self.find(name)) not in (None, self.root)]
        splits = [folder] if folder == self.root else list(dict.fromkeys([folder, *named, *asked]))
        found = [
            {
                entry.name
                for entry in entries_of(split)
                if is_folder(entry) and not is_hidden(entry.name) and has_images(Path(entry.path))
            }
            for split in (*splits, *self._others)
        ]
        names = sorted(set().union(*found))
        values = [int(name) if name.isascii() and name.isdecimal() else MAX_NUMBERED for name in names]
        if not names or max(values) >= MAX_NUMBERED:
            alike: dict[str, list[str]] = {}  # of two file systems, which write an accent in two ways
            apart = set().union(*map(_spelt_in_two_ways, found))
            for name in names:
                alike.setdefault(composed(name) if _folded(name) in apart else _folded(name), []).append(name)
            return list(alike.values())
        called: list[list[str]] = [[str(value)] for value in range(max(values) + 1)]
        for name, value in zip(names, values, strict=True):
            called[value].append(name)
        return called


def _folded(name: str) -> str:
    return as_called(name).casefold()


def _spelt_in_two_ways(classes: Collection[str]) -> set[str]:
    """Return the names, without regard to case, by which one split calls several classes."""
    spelt: dict[str, str] = {}
    return {_folded(name) for name in classes if spelt.setdefault(_folded(name), composed(name)) != composed(name)}


def _is_beyond(path: Path, folder: Path, other: Path) -> bool:
    """Return whether a file below a folder lies, by links, below the other one."""
    own, real = folder.resolve(), path.resolve()
    return real.is_relative_to(other.resolve()) and not real.is_relative_to(own)


def _cell(path: Path) -> dict[str, Any]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a name of other bytes than UTF-8, which tables cannot hold
        return {"bytes": _read_bytes(path), "path": os.fsencode(path).decode("utf-8", "backslashreplace")}
    return {"bytes": None, "path": str(path)}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror}") from error
