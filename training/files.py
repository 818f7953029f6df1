"""Files that appear whole or not at all, and errors that name the file, its cause and a remedy."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import torch

from training.errors import RunError, describe_causes

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENOENT}
Json = TypeVar("Json", dict[str, Any], list[Any])


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `file`, flush it to the disk, and only then rename it into place.

    Raises RunError, naming the file, if the disk fails.
    """
    aside = file.with_name(f".{file.name}.part")
    with writing(file):
        try:
            write(aside)
            with aside.open("rb+") as handle:
                os.fsync(handle.fileno())
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Make a folder, and those around it, if it is not there. Raises RunError, naming it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_writable(folder: Path) -> None:
    """Raise RunError if nothing can be written into a folder, before there is something to lose."""
    with writing(folder / "a file"), tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Raise RunError if the disk fails within, naming the file that is written, the cause and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = ""
        if error.errno in FULL:
            remedy = "; make room, and run the same command again"
        elif error.errno in FORBIDDEN:
            remedy = f"; allow it to write in {file.parent}, or name another folder"
        elif error.errno in NO_FOLDER:
            remedy = "; name a folder, or a place where one can be made"
        raise RunError(f"{file} cannot be written: {error.strerror or error}{remedy}") from error


def write_tensors(file: Path, value: object) -> None:
    """Write what `torch.load` reads, as a whole file."""
    write_whole(file, lambda aside: _save(value, aside))


def _save(value: object, file: Path) -> None:
    """Save through a handle that keeps the disk's error, which torch replaces by another."""
    with file.open("wb", buffering=0) as handle:
        kept = _KeepingHandle(handle)
        try:
            torch.save(value, cast("IO[bytes]", kept))
        except Exception:
            if kept.error:
                raise kept.error from None
            raise


class _KeepingHandle:
    """The part of a file that torch writes to, and the first error of it."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of the data, or keep the error and raise it."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += self._handle.write(view[done:])
        except OSError as error:
            self.error = self.error or error
            raise
        return done

    def flush(self) -> None:
        """Have nothing to flush."""


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write lines of text, as a whole file."""
    write_whole(file, lambda aside: aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))


def write_json(file: Path, value: object) -> None:
    """Write JSON for people, as a whole file."""
    write_lines(file, [json.dumps(value, indent=2)])


def read_json(file: Path, kind: type[Json]) -> Json:
    """Read a file of JSON. Raises RunError if it is damaged, or holds another kind of value."""
    with expecting("JSON", file):
        value = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise TypeError(f"it is of type {type(value).__name__}, not {kind.__name__}")
    return value


@contextmanager
def expecting(what: str, file: Path, remedy: str = "") -> Iterator[None]:
    """Raise RunError if reading the file in the block fails: it is damaged, or of another kind.

    The error names the file, what was expected and the remedy, if there is one. Errors of
    the disk stay what they are.
    """
    try:
        yield
    except (OSError, MemoryError):  # not about the file's content
        raise
    except Exception as error:  # a damaged file can make a reader fail in any way
        message = describe_causes(error)
        if isinstance(error, pickle.UnpicklingError):
            message = message.partition(". ")[0]  # torch adds advice
        raise RunError("; ".join(filter(None, [f"{file} does not hold {what}: {message}", remedy]))) from error
