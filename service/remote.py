"""Models from a URL that fsspec knows (s3://, gs://, hf://), copied whole into a local folder before any is opened.

The URL holds <name>/<version>/model.onnx, or <version>/model.onnx of one model, whose name its metadata has. Only
whole files get their names in the local folder, which the service then watches like any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import SettingsError, StartError
from service.metadata import MetadataError, parse_metadata, read_properties

if TYPE_CHECKING:
    from service.settings import Settings

logger = logging.getLogger("cogan.remote")
MODEL = re.compile(r"(?:([a-z][a-z0-9_]*)/)?([1-9][0-9]{0,8})/model\.onnx")
DIGEST = ".sha256"  # beside the model, as sha256sum writes it
Entry = dict[str, Any]  # of a store's listing: `name`, `size`, and whatever changes with the content
PART = ".cogan-part"  # folder of what is being copied; the service opens nothing whose name begins with a dot
COPIES = ".cogan-copies.json"  # list of what was copied into the folder: nothing else in it is replaced or removed


class StoreError(StartError):
    """The store cannot be read, or holds something that cannot be served."""


@contextmanager
def local_models(settings: Settings) -> Iterator[Path]:
    """Give the folder to serve: that of the settings, or the copy of their URL, kept up to date while in use.

    Raises SettingsError for a URL that fsspec does not know or a cache with other models, and StoreError if nothing
    was copied, now or earlier.
    """
    url = str(settings.models_dir)
    if "://" not in url:
        yield Path(url)
        return
    with tempfile.TemporaryDirectory(prefix="cogan-models-", ignore_cleanup_errors=True) as temporary:
        folder = settings.models_cache or Path(temporary)
        store = ModelStore(url, folder)
        try:
            store.copy()
        except StoreError as error:
            if not store.models():
                raise
            logger.error("%s; serving what was copied earlier", error)
        if settings.models_refresh_s:
            threading.Thread(target=store.watch, args=(settings.models_refresh_s,), name="store", daemon=True).start()
        yield folder


class ModelStore:
    """A URL with models, and the local folder that they are copied to."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._copied: dict[str, tuple[str, Path]] = {}  # of each path: what the store says of it, and its copy
        try:
            from fsspec.core import url_to_fs

            self._store, root = url_to_fs(url, skip_instance_cache=True)
            self._root = root.rstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            if other := sorted(self.models() - self._copies()):
                raise self._wrong_cache(f"it has {other[0]}, which was not copied from a URL by this release")
        except (ImportError, ValueError) as error:
            hint = "install the extra `remote`, or the package that the error names"
            raise SettingsError(f"COGAN_MODELS_DIR = {url!r}: {error}; {hint}") from error
        except OSError as error:
            raise SettingsError(f"COGAN_MODELS_CACHE = '{folder}': {error.strerror}") from error

    def models(self) -> set[str]:
        """Return the model files in the folder, below it."""
        found = (path.relative_to(self._folder) for path in self._folder.glob("*/*/model.onnx"))
        return {str(path) for path in found if not path.parts[0].startswith(".")}

    def _copies(self) -> set[str]:
        """Return the model files that were copied into the folder, also those that are gone, below it."""
        try:
            return set(json.loads((self._folder / COPIES).read_bytes()))
        except FileNotFoundError:
            return set()
        except (ValueError, TypeError) as error:
            raise self._wrong_cache(f"{COPIES} in it is no list of copied models") from error

    def _wrong_cache(self, why: str) -> SettingsError:
        return SettingsError(f"COGAN_MODELS_CACHE = '{self._folder}': {why}; name an empty folder")

    def _record(self, place: Path) -> None:
        """Add a model to the list of copies. Raises StoreError if another one is in its place."""
        if (name := str(place.relative_to(self._folder))) in (copies := self._copies()):
            return
        if place.exists():
            raise StoreError(f"{place} is there, and was not copied from a URL")
        part = self._folder / PART / COPIES
        part.write_text(json.dumps(sorted({*copies, name})))
        part.replace(self._folder / COPIES)  # before the model, so that each copy is in it after a crash

    def watch(self, every_s: float) -> None:
        """Copy what has changed, for ever; what was copied stays while the store cannot be read."""
        while True:
            time.sleep(every_s)
            try:
                self.copy()
            except Exception as error:  # whatever a store's library raises, the next look may succeed
                logger.error("%s; what was copied stays", error, exc_info=not isinstance(error, StoreError))

    def copy(self) -> None:
        """Copy what has changed since the last look, and remove what the store no longer holds.

        Raises StoreError, and then removes nothing.
        """
        found = self._list()
        shutil.rmtree(self._folder / PART, ignore_errors=True)
        wrong = []
        for path, (entry, digest) in found.items():
            seen = f"{entry} {digest}"
            if path not in self._copied or self._copied[path][0] != seen:
                try:
                    self._copied[path] = seen, self._fetch(path, entry["size"], digest)
                except (StoreError, OSError, MetadataError) as error:
                    wrong.append(f"{self._url}: {path} is not served: {error}")
        shutil.rmtree(self._folder / PART, ignore_errors=True)
        if wrong:
            raise StoreError("; ".join(wrong))
        wanted = {self._copied[path][1] for path in found}
        for model in {self._folder / path for path in self.models() & self._copies()} - wanted:
            model.unlink()
            with suppress(OSError):  # something else is in there
                model.parent.rmdir()

    def _list(self) -> dict[str, tuple[Entry, Entry | None]]:
        """Return what the store says of each model, and of the digest beside it, by path below the URL."""
        try:
            self._store.invalidate_cache()
            entries = self._store.find(self._root, detail=True)
        except Exception as error:  # each store's library has its own
            raise StoreError(f"{self._url} cannot be read: {type(error).__name__}: {error}") from error
        by_path = {full[len(self._root) :].strip("/"): entry for full, entry in entries.items()}
        found = {p: (entry, by_path.get(p + DIGEST)) for p, entry in by_path.items() if MODEL.fullmatch(p)}
        if not found:
            raise StoreError(f"{self._url} holds no <name>/<version>/model.onnx")
        return found

    def _fetch(self, path: str, size: int, digest: Entry | None) -> Path:
        """Copy a model, check that it is whole, and give it its name, which is returned.

        Raises StoreError, MetadataError and OSError, and what the store's library raises.
        """
        part = self._folder / PART / path
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._store.get_file(f"{self._root}/{path}", str(part))
            stated = self._store.cat_file(digest["name"]).split()[0].decode() if digest is not None else None
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        content = part.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if stated not in (None, found):
            raise StoreError(f"its digest is {found}, and {DIGEST} beside it says {stated}")
        if len(content) != size:
            raise StoreError(f"{len(content)} bytes were received of {size}")
        metadata = parse_metadata(read_properties(content))  # they end the file
        name, version = MODEL.fullmatch(path).groups()  # type: ignore[union-attr]  # _list has matched it
        place = self._folder / (name or metadata.name) / version / "model.onnx"
        self._record(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        logger.info("copied %s/%s", self._url, path, extra={"digest": f"sha256:{found}"})
        return place
