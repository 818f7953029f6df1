"""Finds and opens models/<name>/<version>/model.onnx; what cannot be served is refused, with the reason."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from service.metrics import Metrics
from service.onnx_model import ModelRefused, OnnxModel, Provider

logger = logging.getLogger("cogan.models")
MODEL_FILE = "model.onnx"
VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Refused:
    """A model file that is not served: its path, and what is wrong with it."""

    path: str
    reason: str


@dataclass
class ModelRepository:
    """What a folder of models holds: the highest version of every model, and what was refused."""

    folder: Path
    models: dict[str, OnnxModel] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)

    @property
    def trouble(self) -> str | None:
        """Why no model can answer; None where one can."""
        if self.models:
            return None
        if not self.folder.is_dir():
            return f"the models folder {self.folder} does not exist"
        if not self.refused:
            return f"the models folder {self.folder} holds no <name>/<version>/{MODEL_FILE}"
        return "every model was refused: " + "; ".join(f"{one.path}: {one.reason}" for one in self.refused)


def open_repository(folder: Path, provider: Provider, max_batch: int, metrics: Metrics) -> ModelRepository:
    """Open every model in the folder, by name; one that is refused does not hinder the others.

    Raises ProviderMissing where the provider is not there.
    """
    repository = ModelRepository(folder)
    for name, path in _find(folder):
        start = time.perf_counter()
        try:
            model = _open_as(name, path, provider, max_batch)
        except (ModelRefused, OSError) as error:
            repository.refused.append(Refused(path.relative_to(folder).as_posix(), str(error)))
            logger.error("model refused: %s: %s", path, error)
            continue
        repository.models[name] = model
        metrics.model_load.labels(name).set(time.perf_counter() - start)
        metrics.model_info.labels(name, model.metadata.version, model.digest, provider).set(1)
    metrics.models_refused.set(len(repository.refused))
    if repository.trouble:
        logger.error("no model is served: %s", repository.trouble)
    return repository


def _find(folder: Path) -> list[tuple[str, Path]]:
    """List the file of the highest version of every model; a folder without any model file is none."""
    found = []
    for model in sorted(folder.iterdir()) if folder.is_dir() else []:
        files = sorted(model.glob(f"*/{MODEL_FILE}")) if not model.name.startswith(".") else []
        versions = [file for file in files if VERSION.fullmatch(file.parent.name)]
        if files:
            highest = max(versions, key=lambda file: int(file.parent.name), default=files[0])
            found.append((model.name, highest))
    return found


def _open_as(name: str, path: Path, provider: Provider, max_batch: int) -> OnnxModel:
    """Open a file, and check that it lies where its name and version say."""
    version = path.parent.name
    if not VERSION.fullmatch(version):
        raise ModelRefused(f"the version folder is named '{version}'; allowed are whole numbers from 1")
    model = OnnxModel(path, provider, max_batch)
    metadata = model.metadata
    if (metadata.name, metadata.version) != (name, version):
        raise ModelRefused(
            f"its metadata says {metadata.name}/{metadata.version}, but its folder is {name}/{version}"
        )
    return model
