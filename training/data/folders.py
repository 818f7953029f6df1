"""Folders of images: splits and classes.

The first folder below a source names the split, the next one the class. A source without folders of splits is one
split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from training.data.listing import (
    METADATA,
    as_called,
    composed,
    entries_of,
    has_images,
    identity,
    is_folder,
    is_hidden,
    list_images,
    log_once,
    read_metadata,
    reasons,
    report,
    some,
)
from training.data.preprocess import is_image
from training.errors import DataError, MissingSplitError

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
        """Folders that are called as splits are: train, or train_images, 1_train, beside their test folders."""
        parts = {name: match for name in self.folders if (match := SPLIT_IN_NAME.search(name))}
        rests = {
            name: (name[: one.start()].casefold().lstrip("0123456789"), name[one.end() :].casefold())
            for name, one in parts.items()
        }
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
