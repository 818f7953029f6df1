"""Finds and opens models/<name>/<version>/model.onnx; what cannot be served is refused, with the reason."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from service.engine.onnx_model import OnnxModel, file_digest
from service.engine.sessions import ModelRefused, Provider

MODEL_FILE = "model.onnx"
VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Refused:
    """A file or folder that is not served: its path below the models folder, and what is wrong with it."""

    path: str
    reason: str


@dataclass(frozen=True)
class Opening:
    """What came of opening a model: what to serve, if anything, what was refused, and the seconds it took."""

    model: OnnxModel | None
    refused: tuple[Refused, ...]
    seconds: float


class ModelRepository:
    """A folder of models. It remembers nothing: every answer is what lies there now."""

    def __init__(self, folder: Path, provider: Provider, max_batch: int) -> None:
        self.folder, self._provider, self._max_batch = folder, provider, max_batch

    def names(self) -> list[str]:
        """List the folders that have a model file, by name; of a folder that cannot be read, none."""
        try:
            folders = sorted(folder.name for folder in self.folder.iterdir())
        except OSError:
            return []
        return [name for name in folders if not name.startswith(".") and self.versions(name)]

    def versions(self, name: str) -> list[str]:
        """List a model's version folders, the highest first; a wrongly named one where there is no other.

        One whose name begins with a dot is on its way, and none yet.
        """
        found = [file.parent.name for file in (self.folder / name).glob(f"*/{MODEL_FILE}")]
        valid = [version for version in found if VERSION.fullmatch(version)]
        wrong = sorted(version for version in found if not version.startswith("."))
        return sorted(valid, key=int, reverse=True) or wrong[:1]

    def places(self) -> list[tuple[str, str]]:
        """List all names with their versions."""
        return [(name, version) for name in self.names() for version in self.versions(name)]

    def absence(self) -> str:
        """Say why there are no names."""
        try:
            next(self.folder.iterdir(), None)
        except OSError as error:
            return f"the models folder {self.folder} cannot be read: {error.strerror}"
        return f"the models folder {self.folder} holds no <name>/<version>/{MODEL_FILE}"

    def open(self, name: str, served: OnnxModel | None) -> Opening:
        """Open the highest version that can be served, and warm it up.

        What is refused never takes away the model `served` now: it is returned where it is the highest still,
        and where that is refused. Raises ProviderMissing.
        """
        start = time.perf_counter()
        model, refused = None, []
        for version in self.versions(name):
            try:
                model = self._open_version(name, version, served)
                break
            except (ModelRefused, OSError) as error:
                refused.append(Refused(f"{name}/{version}/{MODEL_FILE}", str(error)))
                if served is not None:
                    break
        if model is None and not refused:
            refused = [Refused(name, f"it holds no <version>/{MODEL_FILE} any more")]
        return Opening(model or served, tuple(refused), time.perf_counter() - start)

    def _open_version(self, name: str, version: str, served: OnnxModel | None) -> OnnxModel:
        """Open a file, unless it is the one served, and check that it lies where its name and version say."""
        if not VERSION.fullmatch(version):
            raise ModelRefused(f"the version folder is named '{version}'; allowed are whole numbers from 1")
        path = self.folder / name / version / MODEL_FILE
        if served is not None and (served.version, served.digest) == (version, file_digest(path)):
            return served
        model = OnnxModel(path, self._provider, self._max_batch)
        if (model.name, model.version) != (name, version):
            raise ModelRefused(
                f"its metadata says {model.name}/{model.version}, but its folder is {name}/{version}"
            )
        return model
