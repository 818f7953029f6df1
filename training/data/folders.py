"""Folders of images: splits, classes and metadata.

The first folder below a source names the split and nothing else does; the next one names the class. A source
that has no such folders is one split of its own. Links are followed. Every image file is read, or reported in
one log line with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from training.data.listing import (
    METADATA,
    composed,
    entries_of,
    has_images,
    identity,
    is_folder,
    is_hidden,
    is_image,
    list_images,
    log_once,
    read_metadata,
    reasons,
    report,
    some,
)
from training.data.tables import Splits
from training.errors import DataError

WHOLE = "train"  # split of a source without split folders
ALIASES = {"train": ("training",), "test": ("testing",), "validation": ("valid", "val", "dev")}
SPLIT_FOLDER = re.compile(
    r"(?i:train|training|test|testing|val|valid|validation|dev|eval|evaluation)[-_. ]?([A-Z]|\d+)?"
)  # train, Test, trainA, val2017
SPLIT_IN_NAME = re.compile(  # of train_images, real_train
    r"(?i)^(train|test|val|valid|validation|dev|eval)(ing|uation)?(?=[-_. ]|set|image|data)"
    r"|(?<=[-_. ])(train|test|val|valid|validation|dev|eval)(ing|uation)?$"
)
MAX_NUMBERED = 1000  # classes called by numbers below this are numbered by their value


class ImageFolder:
    """A source of images in folders."""

    def __init__(self, root: Path) -> None:
        """Find the splits below a source; images are listed when a split is read."""
        self.root = root
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
        """Whether no folder is called as splits are: all images are of one split then."""
        return not self.split_folders

    def find(self, name: str) -> Path | None:
        """Return the folder of a split, if it has images: of that name, or the same but for its case."""
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
        """Raise DataError if folders of splits lie one folder deeper than they are looked for."""
        for folder in self.folders.values():
            inner = {entry.name.casefold() for entry in entries_of(folder) if is_folder(entry)}
            splits = sorted(name for name in inner if SPLIT_FOLDER.fullmatch(name))
            if len({name.startswith("train") for name in splits}) == 2:
                raise DataError(f"{folder} has folders {splits}, which are called as splits: name it as source")

    def splits(self, names: list[str], other: list[str]) -> Splits:
        """Return what reads each split. Raises DataError if one is missing, or shares a file with another.

        `other` names the splits of the other use, measuring or training, that must not have the same files.
        """
        folders = {name: self.find(name) for name in names}
        for name, folder in folders.items():
            if folder is None:
                raise DataError(self.missing(name))
        found = {name: folder for name, folder in folders.items() if folder}
        self._report_others(found)
        against = {folder for name in other if (folder := self.find(name)) and folder not in found.values()}
        for folder in found.values():
            self._check_apart(folder, against)
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
        """Log which images below the source are in no split, if splits are called as they mostly are."""
        if self.root in found.values() or not all(SPLIT_FOLDER.fullmatch(name) for name in found):
            return
        others = [
            name
            for name, folder in self.folders.items()
            if folder not in found.values()
            and (not SPLIT_FOLDER.fullmatch(name) or name.casefold() in map(str.casefold, found))
            and has_images(folder)
        ]
        if self.lies_flat or others:
            where = [f"folders {sorted(others)}"] * bool(others) + ["the source itself"] * self.lies_flat
            log_once(f"{self.root}: images in {' and '.join(where)} are in no split and are not read")

    def _check_apart(self, folder: Path, others: set[Path]) -> None:
        """Raise DataError if links bring files of one split into another one; report what both link to."""
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

    def read_whole(self) -> datasets.Dataset:
        """Return all images of the source as one split."""
        return self.read(self.root)

    def read(self, folder: Path) -> datasets.Dataset:
        """Return the images of a split as a table: image, label if there are classes, columns of metadata."""
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
            classes = [_class_of(path, folder) for path in listing.images]
            columns["label"] = [None if one is None else numbers[one] for one in classes]
            features["label"] = datasets.ClassLabel(names=[aliases[0] for aliases in names])
        try:
            inferred = datasets.Dataset.from_dict(metadata).features if metadata else {}
            return datasets.Dataset.from_dict(columns, datasets.Features(inferred | features))
        except (pyarrow.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"metadata in {folder}: {error}") from error

    def _class_names(self, folder: Path) -> list[list[str]]:
        """Return the names of each class, in all splits; nothing if images lie in no folders of classes.

        Classes that are called by numbers are numbered by these: 07 and 7 are the class 7.
        """
        named = [self.folders[name] for name in self.split_folders]
        splits = [folder] if folder == self.root else [folder, *named]
        names = sorted(
            {
                entry.name
                for split in splits
                for entry in entries_of(split)
                if is_folder(entry) and not is_hidden(entry.name) and has_images(Path(entry.path))
            }
        )
        values = [int(name) if name.isascii() and name.isdecimal() else MAX_NUMBERED for name in names]
        if not names or max(values) >= MAX_NUMBERED:
            alike: dict[str, list[str]] = {}  # of two file systems, which write an accent in two ways
            for name in names:
                alike.setdefault(composed(name), []).append(name)
            return list(alike.values())
        called: list[list[str]] = [[str(value)] for value in range(max(values) + 1)]
        for name, value in zip(names, values, strict=True):
            called[value].append(name)
        return called


def _is_beyond(path: Path, folder: Path, other: Path) -> bool:
    """Return whether a file below a folder lies, by links, below the other one."""
    own, real = folder.resolve(), path.resolve()
    return real.is_relative_to(other.resolve()) and not real.is_relative_to(own)


def _class_of(path: Path, folder: Path) -> str | None:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else None


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
