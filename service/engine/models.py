"""Models of a folder: found, loaded, replaced while they serve, and looked up by name.

The folder is the truth: every process looks at it twice a second, and at the state that requests to load and unload
models have left. A new version is loaded and warmed up beside the old one, in a thread of its own, and only then
served. What was accepted before is still computed by the model that accepted it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from service.engine.batcher import Batcher
from service.engine.onnx_model import ModelRefused, OnnxModel, Provider, file_digest
from service.errors import FieldError, LoadRefused, NotReady, ProviderMissing, Stuck, UnknownModel
from service.telemetry.metrics import Metrics, ServedModel

logger = logging.getLogger("cogan.models")
MODEL_FILE = "model.onnx"
ROOT = "."  # path of an error that is the models folder's own
LOST_FOUND = "lost+found"  # a volume's own folder, which only root may read
VERSION = re.compile(r"[1-9][0-9]{0,8}")
LOOK_EVERY_S = 0.5  # so that a change holds everywhere within a second
T = TypeVar("T")
Fingerprint = dict[str, tuple[object, ...]]  # of each model's files, by its name


@dataclass(frozen=True)
class LoadError:
    """A file or folder that cannot be served: its path below the models folder, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class LoadResult:
    """The model to serve, if any, what was refused, and the seconds it took."""

    model: OnnxModel | None
    errors: tuple[LoadError, ...]
    seconds: float


class ModelRepository:
    """A folder of models, <name>/<version>/model.onnx. It keeps no state: every answer is what is there now."""

    def __init__(self, folder: Path, provider: Provider, max_batch: int) -> None:
        self.folder, self._provider, self._max_batch = folder, provider, max_batch

    def names(self) -> list[str]:
        """Return the folders that may hold a model, by name. Raises OSError if the folder cannot be read."""
        with os.scandir(self.folder) as entries:
            found = sorted(one.name for one in entries if not one.name.startswith("."))
        return [name for name in found if self._is_model(name)]

    def versions(self, name: str) -> list[str]:
        """Return a model's version folders, the highest first; a wrongly named one if there is no other.

        A folder whose name begins with a dot is still being written. Raises OSError if one cannot be read.
        """
        found = [v.name for v in (self.folder / name).iterdir() if not v.name.startswith(".") and _has_file(v)]
        valid = [version for version in found if VERSION.fullmatch(version)]
        return sorted(valid, key=int, reverse=True) or sorted(found)[:1]

    def fingerprint(self) -> Fingerprint:
        """Return what changes with a model's files. Raises OSError if the folder cannot be read."""
        return {name: self._stat(name) for name in self.names()}

    def unavailable_reason(self) -> str:
        """Return why there are no models."""
        try:
            next(self.folder.iterdir(), None)
        except OSError as error:
            return f"the models folder {self.folder} cannot be read: {error.strerror}"
        return f"the models folder {self.folder} holds no <name>/<version>/{MODEL_FILE}"

    def load(self, name: str, served: OnnxModel | None) -> LoadResult:
        """Load the highest version that can be served.

        A refused version never takes away the `served` one, which is returned if it is still the highest or a higher
        one is refused. Raises ProviderMissing.
        """
        start, model, errors = time.perf_counter(), None, list[LoadError]()
        try:
            versions = self.versions(name)
        except OSError as error:
            versions, errors = [], [LoadError(name, _reason(error))]
        for version in versions:
            try:
                model = self._load_version(name, version, served)
                break
            except (ModelRefused, OSError) as error:
                errors.append(LoadError(f"{name}/{version}/{MODEL_FILE}", _reason(error)))
                if served is not None:
                    break
        if model is None and not errors:
            errors = [LoadError(name, f"it holds no <version>/{MODEL_FILE} any more")]
        return LoadResult(model or served, tuple(errors), time.perf_counter() - start)

    def _load_version(self, name: str, version: str, served: OnnxModel | None) -> OnnxModel:
        if not VERSION.fullmatch(version):
            raise ModelRefused(f"the version folder is named '{version}'; allowed are whole numbers from 1")
        path = self.folder / name / version / MODEL_FILE
        if served is not None and (served.version, served.digest) == (version, file_digest(path)):
            return served
        model = OnnxModel(path, self._provider, self._max_batch)
        if (model.name, model.version) != (name, version):
            found = f"{model.name}/{model.version}"
            raise ModelRefused(f"its metadata says {found}, but its folder is {name}/{version}")
        return model

    def _is_model(self, name: str) -> bool:
        try:
            return bool(self.versions(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return name != LOST_FOUND  # its load reports the reason

    def _stat(self, name: str) -> tuple[object, ...]:
        try:
            files = [(version, (self.folder / name / version / MODEL_FILE).stat()) for version in self.versions(name)]
        except OSError as error:
            return (_reason(error),)
        return tuple(
            (version, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) for version, stat in files
        )


def _has_file(version: Path) -> bool:
    """Return whether a version folder holds a model; one that may not be searched is left to its load."""
    try:
        (version / MODEL_FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        hint = f": user {os.geteuid()} may not read it" if isinstance(error, PermissionError) else ""
        return f"{error.strerror}{hint}"
    return str(error)


@dataclass
class Control:
    """Models loaded and unloaded by request: names to leave out, and how often each was loaded."""

    unloaded: set[str] = field(default_factory=set)
    loads: dict[str, int] = field(default_factory=dict)


class ControlState:
    """The Control that the processes of a service share through a file; without one, of this process."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._own = file, Control()

    def read(self) -> Control:
        """Return the current state."""
        if self._file is None:
            return self._own
        try:
            stored = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return Control()
        return Control(set(stored["unloaded"]), stored["loads"])

    def load(self, name: str) -> None:
        """Record that a model was loaded by request."""
        with self._changed() as control:
            control.unloaded.discard(name)
            control.loads[name] = control.loads.get(name, 0) + 1

    def unload(self, name: str) -> None:
        """Record that a model was unloaded by request."""
        with self._changed() as control:
            control.unloaded.add(name)

    @contextmanager
    def _changed(self) -> Iterator[Control]:
        """Give the state to change; one process at a time writes it, and the file appears whole."""
        if self._file is None:
            yield self._own
            return
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            control = self.read()
            yield control
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps({"unloaded": sorted(control.unloaded), "loads": control.loads}))
            part.replace(self._file)


class ModelRegistry:
    """The batchers of the served models, by name. All of it belongs to the event loop."""

    def __init__(
        self,
        make_batcher: Callable[[OnnxModel], Batcher],
        default: str | None,
        stuck_after_s: float,
        metrics: Metrics,
    ) -> None:
        """`default` names the model of requests that name none; without it, it is the first generator by name."""
        self._make_batcher, self._default, self._metrics = make_batcher, default, metrics
        self._stuck_after_s = stuck_after_s
        self._batchers: dict[str, Batcher] = {}
        self._all = WeakSet[Batcher]()  # those of unloaded models that still run, too
        self._errors: dict[str, tuple[LoadError, ...]] = {}
        self._load_s: dict[str, float] = {}
        self.none_found = "no model is loaded yet"  # why there are none, if none was refused
        self.changes = 0  # how often the served models have changed
        self.draining = False
        metrics.watch_models(self._served, lambda: len(self.errors), lambda: self.unavailable_reason is None)

    @property
    def models(self) -> list[OnnxModel]:
        """The served models, by name."""
        return [self._batchers[name].model for name in sorted(self._batchers)]

    @property
    def known(self) -> set[str]:
        """Names of what is served or was refused."""
        return {*self._batchers, *self._errors}

    @property
    def errors(self) -> list[LoadError]:
        """Load errors of the last attempts, by name of the model."""
        return [error for name in sorted(self._errors) for error in self._errors[name]]

    @property
    def default(self) -> str | None:
        """Name of the model of requests that name none."""
        return self._default or min((m.name for m in self.models if m.metadata.kind == "generator"), default=None)

    @property
    def unavailable_reason(self) -> str | None:
        """Why requests cannot be answered; None if they can."""
        if self.draining:
            return "the service is shutting down"
        if self._batchers:
            return None
        reasons = "; ".join(f"{error.path}: {error.reason}" for error in self.errors)
        return f"every model was refused: {reasons}" if reasons else self.none_found

    @property
    def stuck_reason(self) -> str | None:
        """Why only a restart helps; None unless a batch runs for longer than the setting."""
        longest = max((batcher.longest_run_s for batcher in self._all), default=0.0)
        return f"a batch has been running for {longest:.1f} s" if longest > self._stuck_after_s else None

    @property
    def busy(self) -> bool:
        """Whether any model has rows that wait or run; any thread may ask."""
        return any(batcher.busy for batcher in list(self._batchers.values()))

    def check_ready(self) -> None:
        """Raise NotReady if requests cannot be answered."""
        if (reason := self.unavailable_reason) is not None:
            raise NotReady(reason, headers={"Retry-After": "5"})

    def check_alive(self) -> None:
        """Raise Stuck if only a restart helps."""
        if (reason := self.stuck_reason) is not None:
            raise Stuck(reason)

    def model(self, name: str | None, version: str | None = None, place: str = "body") -> OnnxModel:
        """Return the model of this name, or the default one. Raises UnknownModel and NotReady.

        `version` asks for one version only; `place` is where the request names them.
        """
        name = name if name is not None else self.default
        if name is None or not self._batchers:
            missing = (
                "generator is served; /models lists what is" if self._batchers else "model is served; /readyz says why"
            )
            raise NotReady(f"no {missing}", headers={"Retry-After": "5"})
        if name not in self._batchers:
            raise unknown_model(name, sorted(self._batchers), place)
        model = self._batchers[name].model
        if version not in (None, model.version):
            wrong = FieldError("/version", version, [model.version], place)
            raise UnknownModel(f"model '{name}' is served in version {model.version} only", [wrong])
        return model

    def generator(self, name: str | None, place: str = "body") -> OnnxModel:
        """Return the generator of this name, or the default one. Raises UnknownModel and NotReady."""
        model = self.model(name, place=place)
        if model.metadata.kind != "generator":
            generators = [one.name for one in self.models if one.metadata.kind == "generator"]
            wrong = FieldError("/model", name, generators, place)
            raise UnknownModel(f"model '{name}' is a {model.metadata.kind}; this needs a generator", [wrong])
        return model

    def batcher(self, name: str) -> Batcher:
        """Return the batcher of a model. Raises UnknownModel if it was unloaded meanwhile."""
        if name not in self._batchers:
            raise unknown_model(name, sorted(self._batchers), "body")
        return self._batchers[name]

    def apply(self, name: str, result: LoadResult) -> None:
        """Serve what was loaded, and keep what was refused."""
        self._errors.pop(name, None)
        if result.errors:
            self._errors[name] = result.errors
        for error in result.errors:
            logger.error("model refused: %s: %s", error.path, error.reason)
        if (model := result.model) is None:
            return
        batcher = self._batchers.get(name)
        if batcher is not None and batcher.model is model:
            return
        if batcher is None:
            self._batchers[name] = batcher = self._make_batcher(model)
            self._all.add(batcher)
        batcher.model = model
        self._load_s[name] = result.seconds
        self.changes += 1
        extra = {"digest": model.digest, "seconds": round(result.seconds, 3)}
        logger.info("model served: %s/%s", name, model.version, extra=extra)

    def remove(self, name: str, reason: str) -> None:
        """Stop serving a model, and forget why it was refused."""
        self._errors.pop(name, None)
        if (batcher := self._batchers.pop(name, None)) is None:
            return
        self.changes += 1
        self.none_found = f"every model was removed, the last because {reason}"
        self._metrics.forget_model(name)
        logger.info("model removed: %s/%s, because %s", name, batcher.model.version, reason)

    def _served(self) -> list[ServedModel]:
        return [ServedModel(m.name, m.version, m.digest, m.provider, self._load_s[m.name]) for m in self.models]


class ModelLoader:
    """Keeps a registry like the models folder and the control state. Changes happen one at a time."""

    def __init__(
        self, repository: ModelRepository, registry: ModelRegistry, control: ControlState, thread: Executor
    ) -> None:
        self.repository, self._registry, self._control, self._thread = repository, registry, control, thread
        self._changing = asyncio.Lock()
        self._seen: Fingerprint = {}
        self._loads: dict[str, int] = {}

    def load_all(self) -> None:
        """Load every model in the folder, at the start; one that is refused does not affect the others.

        Raises ProviderMissing if the provider is missing.
        """
        control = self._control.read()
        self._registry.none_found = self.repository.unavailable_reason()
        self._seen, self._loads = self._fingerprint() or {}, dict(control.loads)
        for name in self._seen.keys() - control.unloaded:
            self._registry.apply(name, self.repository.load(name, None))
        if reason := self._registry.unavailable_reason:
            logger.error("no model is served: %s", reason)

    async def watch(self) -> None:
        """Look at the folder and the state for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.refresh()
            except Exception:
                logger.exception("looking at the models folder failed")

    async def refresh(self, everything: bool = False) -> None:
        """Bring the registry up to date with the folder and the state; load again what changed, or everything."""
        async with self._changing:
            found, control = await self._off_loop(lambda: (self._fingerprint(), self._control.read()))
            if found is None:  # unreadable: what is served stays
                self._registry.none_found = reason = self.repository.unavailable_reason()
                if self._registry.models and ROOT not in self._registry.known:
                    self._registry.apply(ROOT, LoadResult(None, (LoadError(ROOT, reason),), 0.0))
                return
            if everything:
                self._registry.none_found = self.repository.unavailable_reason()
            for name in sorted({*found, *self._registry.known}):
                if name in control.unloaded:
                    self._registry.remove(name, "it was unloaded by request")
                elif name in found:
                    if everything or self._changed(name, found, control):
                        await self._load(name)
                elif everything or name not in self._seen:  # for two looks, so that a folder may be replaced
                    self._registry.remove(name, "its files are gone")
            self._seen, self._loads = found, dict(control.loads)

    async def load(self, name: str) -> OnnxModel:
        """Serve the highest version of a model, by request. Raises UnknownModel, and LoadRefused.

        If it is refused, the version served before stays.
        """
        async with self._changing:
            found = await self._off_loop(self._fingerprint) or {}
            if name not in found and name not in {model.name for model in self._registry.models}:
                raise unknown_model(name, sorted(found), "path")
            result = await self._load(name)
            if result.model is not None:
                await self._off_loop(lambda: self._control.load(name))
                self._loads[name] = (await self._off_loop(self._control.read)).loads.get(name, 0)
                self._seen[name] = found.get(name, ())
        if result.errors or result.model is None:
            reasons = "; ".join(f"{error.path}: {error.reason}" for error in result.errors)
            now = f"version {result.model.version} is served" if result.model else "no version is served"
            raise LoadRefused(f"{reasons}; {now}")
        return result.model

    async def unload(self, name: str) -> OnnxModel:
        """Stop serving a model, by request; what was accepted is still computed. Raises UnknownModel."""
        async with self._changing:
            served = {model.name: model for model in self._registry.models}
            if name not in served:
                raise unknown_model(name, sorted(served), "path")
            await self._off_loop(lambda: self._control.unload(name))
            self._registry.remove(name, "it was unloaded by request")
        return served[name]

    def _changed(self, name: str, found: Fingerprint, control: Control) -> bool:
        return found[name] != self._seen.get(name) or control.loads.get(name) != self._loads.get(name)

    async def _load(self, name: str) -> LoadResult:
        """Load a model off the event loop, then serve it; a missing provider ends nothing by now."""
        served = next((model for model in self._registry.models if model.name == name), None)
        try:
            result = await self._off_loop(lambda: self.repository.load(name, served))
        except ProviderMissing as error:
            result = LoadResult(served, (LoadError(name, str(error)),), 0.0)
        self._registry.apply(name, result)
        return result

    def _fingerprint(self) -> Fingerprint | None:
        try:
            return self.repository.fingerprint()
        except OSError:
            return None

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def unknown_model(name: str, known: list[str], place: str) -> UnknownModel:
    """Return the error for a model that is not among those known; `place` is where the request names it."""
    pointer = "/name" if place == "path" else "/model"
    detail = f"no model {name!r:.80}; there are {', '.join(known) or 'none'}"
    return UnknownModel(detail, [FieldError(pointer, name, known, place)])
