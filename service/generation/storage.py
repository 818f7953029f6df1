"""Where shards go: a folder, or a URL that `fsspec` knows. What has its name there is whole."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from service.generation.files import METADATA


class Storage:
    """Files and folders by name."""

    def __init__(self, url: str) -> None:
        """`url` is of a folder, or has a scheme. Raises ImportError without fsspec, or the package of the scheme."""
        self.local = "://" not in url
        if self.local:
            self.path = str(Path(url).absolute())
        else:
            import fsspec

            self._remote, self.path = fsspec.core.url_to_fs(url)
        self._fs: Any = None if self.local else self._remote

    def names(self) -> set[str]:
        """Return what is there and whole."""
        if self.local:
            found = [one.name for one in Path(self.path).iterdir()] if Path(self.path).is_dir() else []
            return {name for name in found if not name.startswith(".")}
        self._fs.invalidate_cache()
        paths = [str(one).removeprefix(self.path).strip("/") for one in self._fs.find(self.path)]
        whole = {path.removesuffix(f"/{METADATA}") for path in paths}
        return {path for path in whole if "/" not in path}

    def read(self, name: str) -> bytes:
        """Return a file."""
        return Path(self.path, name).read_bytes() if self.local else bytes(self._fs.cat_file(f"{self.path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears whole."""
        self.put(name, lambda path: path.write_bytes(content))

    def put(self, name: str, write: Callable[[Path], object]) -> str:
        """Let `write` make a file or folder, which then appears whole; return its digest.

        In a folder it gets its name at the end. Elsewhere it is made in a temporary folder and uploaded, a file by one
        put, a folder file by file and the one that makes it complete at the end.
        """
        if self.local:
            Path(self.path).mkdir(parents=True, exist_ok=True)
            part, target = Path(self.path, f".{name}.part"), Path(self.path, name)
            _remove(part)
            write(part)
            part.replace(target)
            return digest(target)
        with tempfile.TemporaryDirectory() as folder:
            write(part := Path(folder, name))
            for file in sorted(_files(part), key=lambda file: file.name == METADATA):
                self._fs.put_file(str(file), f"{self.path}/{file.relative_to(folder)}")
            return digest(part)

    def digest(self, name: str) -> str:
        """Return the digest of what is there."""
        if self.local:
            return digest(Path(self.path, name))
        with tempfile.TemporaryDirectory() as folder:
            self._fs.get(f"{self.path}/{name}", str(part := Path(folder, name)), recursive=True)
            return digest(part)


def _files(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files of a folder by name."""
    yield from sorted(path.iterdir()) if path.is_dir() else [path]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Return the sha256 of a file; of a folder that of its files in their order, each behind its name."""
    found = hashlib.sha256()
    for file in _files(path):
        found.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as content:
            while part := content.read(2**20):
                found.update(part)
    return f"sha256:{found.hexdigest()}"
