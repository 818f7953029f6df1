"""Files and folders that appear whole, in a folder or at a URL, whichever of several runs makes them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.errors import StartError
from service.generation.shards import METADATA
from service.settings import check_url

PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")  # what a run is writing, or was when it was killed
KEEP_PART_S = 86_400  # without a change; no run writes one part for so long


class StorageError(StartError):
    """The URL is wrong, or its store cannot be read or written."""


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise StorageError, one line with a remedy, for whatever a store's library raises."""
    try:
        yield
    except Exception as error:  # each has its own
        missing = isinstance(error, ImportError)
        remedy = "check the address, credentials, network and free space; the same command goes on"
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.500}"
        raise StorageError(f"{reason}; {'install fsspec and the package it names' if missing else remedy}") from error


class Storage:
    """Files and folders by name, in a folder or at a URL that `fsspec` knows; those with their names are whole.

    All methods raise StorageError for a URL, and OSError for a folder.
    """

    def __init__(self, url: str) -> None:
        """`url` is of a folder, or has a scheme. Raises StorageError for a URL that is wrong or that fsspec rejects."""
        self._fs: Any = None  # of a URL
        try:
            url = check_url(url).removeprefix("file://")
        except ValueError as error:
            raise StorageError(str(error)) from error
        self.path = str(Path(url).absolute())
        if "://" in url:
            with _store_errors():
                import fsspec

                self._fs, self.path = fsspec.core.url_to_fs(url)
        self._folder = Path(self.path)  # without a file system

    def names(self) -> set[str]:
        """Return the names of what is whole."""
        if self._fs is None:
            there = self._folder.iterdir() if self._folder.is_dir() else ()
            return {path.name for path in there if not path.name.startswith(".")}
        with _store_errors():
            self._fs.invalidate_cache()
            paths = [str(one).removeprefix(self.path).strip("/") for one in self._fs.find(self.path)]
        return {name for path in paths if "/" not in (name := path.removesuffix(f"/{METADATA}"))}

    def read(self, name: str) -> bytes:
        """Return a file."""
        if self._fs is None:
            return (self._folder / name).read_bytes()
        with _store_errors():
            return bytes(self._fs.cat_file(f"{self.path}/{name}"))

    def digest(self, name: str) -> str:
        """Return the digest of a file or folder."""
        if self._fs is None:
            return _digest(self._folder / name)
        with tempfile.TemporaryDirectory() as folder, _store_errors():
            self._fs.get(f"{self.path}/{name}", str(part := Path(folder, name)), recursive=True)
            return _digest(part)

    def put(self, name: str, write: Callable[[Path], object]) -> str:
        """Let `write` make a file or folder, which then appears whole; return its digest.

        In a folder it gets its name at the end. Elsewhere it is made in a temporary folder and uploaded, a file by one
        put, a folder file by file and the one that makes it complete at the end. Runs may overlap.
        """
        if self._fs is None:
            return self._put_locally(name, write)
        with tempfile.TemporaryDirectory() as folder:
            write(part := Path(folder, name))
            for file in sorted(_files(part), key=lambda file: file.name == METADATA):
                target = f"{self.path}/{file.relative_to(folder)}"
                with _store_errors():
                    if target.startswith("/"):  # a file system's: buckets have no folders
                        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._fs.put_file(str(file), target)
            return _digest(part)

    def _put_locally(self, name: str, write: Callable[[Path], object]) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{name}.{uuid4().hex}.part"
        try:
            write(part)
            with ThreadPoolExecutor(32) as pool:  # one after the other, a thousand files take seconds
                list(pool.map(_flush, _files(part)))
            digest = _digest(part)
            try:
                part.replace(self._folder / name)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # a folder that another run has finished
                    raise
            return digest
        finally:
            _remove(part)

    def remove_old_parts(self) -> None:
        """Remove from a folder what was left by runs that were killed long ago."""
        oldest = time.time() - KEEP_PART_S
        for path in self._folder.glob(".*.part") if self._fs is None else ():
            with suppress(FileNotFoundError):  # another run was faster
                if PART.fullmatch(path.name) and path.stat().st_mtime < oldest:
                    _remove(path)


def _files(path: Path) -> list[Path]:
    """Return a file itself, or the files of a folder by name."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _flush(path: Path) -> None:
    """Write a file to the disk, so that it is whole after a power failure, too."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _digest(path: Path) -> str:
    """Return the sha256 of a file; of a folder that of its files in their order, each behind its name."""
    found = hashlib.sha256()
    for file in _files(path):
        found.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: found)
    return f"sha256:{found.hexdigest()}"
