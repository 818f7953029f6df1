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
import stat
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar
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
MODEL_PATH = re.compile(rf"[^/]+/({VERSION.pattern})/{re.escape(MODEL_FILE)}")  # below the models folder
PLACE = (
    f"a model is found at <name>/<version>/{MODEL_FILE} alone; move or rename it, or, if COGAN_MODELS_DIR is a model "
    "itself, name the folder around it"
)
LOOK_EVERY_S = 0.5  # so that a change holds everywhere within a second
UNLOADED = "it was unloaded by request"
RETRY = {"Retry-After": "5"}
T = TypeVar("T")
Files = dict[str, object]  # by path below the models folder: what changes with a file, or why it cannot be read
Fingerprint = dict[str, Files]  # by name of the model


class LoadError(NamedTuple):
    """A file or folder that cannot be served: its path below the models folder, and the reason."""

    path: str
    reason: str


LoadResult = tuple[OnnxModel | None, list[LoadError]]  # what to serve, and what was refused


class ModelRepository:
    """A folder of models, <name>/<version>/model.onnx. It keeps no state: every answer is what is there now.

    What has a name that begins with a dot is still being written.
    """

    def __init__(self, folder: Path, provider: Provider, max_batch: int) -> None:
        self.folder, self._provider, self._max_batch = folder, provider, max_batch

    def fingerprint(self) -> Fingerprint | None:
        """Return what changes with the files of each model; None if the folder cannot be read."""
        try:
            names, found = _visible(self.folder), Fingerprint()
        except OSError:
            return None
        for name in names:
            try:
                files = self._files(name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:  # its load reports it
                files = {} if name == LOST_FOUND else {ROOT: _reason(error)}
            if files:
                found[name] = files
        return found

    def unavailable_reason(self) -> str:
        """Return why there are no models."""
        try:
            next(self.folder.iterdir(), None)
        except OSError as error:
            return f"the models folder '{self.folder}' cannot be read: {error.strerror}"
        return f"the models folder '{self.folder}' holds no <name>/<version>/{MODEL_FILE}"

    def load(self, name: str, served: OnnxModel | None) -> LoadResult:
        """Load the highest version that can be served.

        A refused version never takes away the `served` one, which is returned if it is still the highest or a higher
        one is refused. Raises ProviderMissing.
        """
        errors = list[LoadError]()
        try:
            found = {path: MODEL_PATH.fullmatch(path) for path in self._files(name)}
            errors += [LoadError(printable(path), _misplacement(path)) for path, match in found.items() if not match]
            for version in sorted((match[1] for match in found.values() if match), key=int, reverse=True):
                try:
                    return self._load_version(name, version, served), errors
                except (ModelRefused, OSError) as error:
                    errors.append(LoadError(printable(f"{name}/{version}/{MODEL_FILE}"), _reason(error)))
                    if served is not None:
                        break
        except OSError as error:
            errors.append(LoadError(printable(name), _reason(error)))
        return served, errors or [LoadError(printable(name), f"it holds no <version>/{MODEL_FILE} any more")]

    def _load_version(self, name: str, version: str, served: OnnxModel | None) -> OnnxModel:
        path = self.folder / name / version / MODEL_FILE
        if not stat.S_ISREG(path.stat().st_mode):  # to open a FIFO would wait for its writer
            raise ModelRefused("it is no regular file")
        if served is not None and (served.version, served.digest) == (version, file_digest(path.read_bytes())):
            return served
        model = OnnxModel(path, self._provider, self._max_batch)
        if (model.name, model.version) != (name, version):
            found = f"{model.name}/{model.version}"
            raise ModelRefused(
                f"its metadata says {found}, but its folder is {printable(f'{name}/{version}')}; rename it"
            )
        return model

    def _files(self, name: str) -> Files:
        """Return the model files of a name, also links to nothing and what is in a wrong place. Raises OSError."""
        found = Files()
        try:
            versions = _visible(self.folder / name)
        except (FileNotFoundError, NotADirectoryError):
            if misplaced := self._misplaced(name):
                return dict.fromkeys(misplaced)
            raise
        for version in versions:
            if not VERSION.fullmatch(version) and _is_link_beside(self.folder / name / version):
                continue  # latest -> 8
            path = f"{name}/{version}/{MODEL_FILE}"
            try:
                seen = (self.folder / path).stat()
                found[path] = seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino
            except (FileNotFoundError, NotADirectoryError):
                found |= dict.fromkeys(self._misplaced(f"{name}/{version}"))
            except OSError as error:  # its load reports it
                found[path] = _reason(error)
        return found

    def _misplaced(self, path: str) -> list[str]:
        """Return what is meant as a model, in a folder without a model file or in the place of a folder."""
        place = self.folder / path
        if place.is_dir():
            found = (*place.glob("[!.]*.[oO][nN][nN][xX]"), *place.glob(f"[!.]*/{MODEL_FILE}"))
            return [str(file.relative_to(self.folder)) for file in found]
        if VERSION.fullmatch(place.name):
            return [f"{path}/{MODEL_FILE}"]
        return [path] if place.suffix.lower() == ".onnx" else []


def _misplacement(path: str) -> str:
    *_, version, file = ("", *path.split("/"))
    if file != MODEL_FILE or path.count("/") != 2:
        return PLACE
    allowed = "allowed are whole numbers from 1 to 999999999, without zeros in front"
    return f"the version folder is named '{printable(version)}'; {allowed}"


def printable(name: str) -> str:
    """Return a name with its bytes that are no UTF-8 written out, as JSON can hold it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_link_beside(path: Path) -> bool:
    return path.is_symlink() and path.exists() and path.resolve().parent == path.parent.resolve()


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        hint = f": user {os.geteuid()} may not read it" if isinstance(error, PermissionError) else ""
        hint = ": it is gone, or a link to nothing" if isinstance(error, FileNotFoundError) else hint
        return f"{error.strerror}{hint}"
    return str(error)


class ControlState:
    """Counts of the requests to load or unload each model, below 0 if it is unloaded now.

    The processes of a service share it through a file; without one, it is of this process.
    """

    def __init__(self, file: Path | None) -> None:
        self._file, self._own = file, dict[str, int]()

    def read(self) -> dict[str, int]:
        """Return the current state by name."""
        if self._file is None:
            return dict(self._own)
        try:
            return dict(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return {}

    def record(self, name: str, loaded: bool) -> int:
        """Record that a model was loaded or unloaded, and return its number; one process at a time writes."""
        with ExitStack() as stack:
            if self._file is not None:
                lock = stack.enter_context(self._file.with_suffix(".lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._own = self.read()
            self._own[name] = number = (abs(self._own.get(name, 0)) + 1) * (1 if loaded else -1)
            if self._file is not None:
                part = self._file.with_suffix(".part")
                part.write_text(json.dumps(self._own))
                part.replace(self._file)  # it appears whole
        return number


class ModelRegistry:
    """The batchers of the served models, by name. All of it belongs to the event loop."""

    def __init__(
        self, make_batcher: Callable[[OnnxModel], Batcher], default: str | None, stuck_after_s: float, metrics: Metrics
    ) -> None:
        """`default` names the model of requests that name none; without it, it is the first generator by name."""
        self._make_batcher, self._default, self._metrics = make_batcher, default, metrics
        self._stuck_after_s = stuck_after_s
        self._batchers: dict[str, Batcher] = {}
        self._all = WeakSet[Batcher]()  # those of unloaded models that still run, too
        self._errors: dict[str, list[LoadError]] = {}
        self.none_found = "no model is loaded yet"  # why there are none, if none was refused
        self.changes = 0  # how often the served models have changed
        self.draining = False
        metrics.watch_models(
            lambda: [ServedModel(m.name, m.version, m.digest, m.provider, m.load_s) for m in self.models],
            lambda: len(self.errors),
            lambda: self.unavailable_reason is None,
        )

    @property
    def models(self) -> list[OnnxModel]:
        """The served models, by name."""
        return [self._batchers[name].model for name in sorted(self._batchers)]

    @property
    def generators(self) -> list[OnnxModel]:
        """The served generators, by name."""
        return [model for model in self.models if model.metadata.kind == "generator"]

    @property
    def known(self) -> set[str]:
        """Names of models that are served or were refused."""
        return {*self._batchers, *self._errors}

    @property
    def errors(self) -> list[LoadError]:
        """Load errors of the last attempts, by name of the model."""
        return [error for name in sorted(self._errors) for error in self._errors[name]]

    @property
    def default(self) -> str | None:
        """Name of the model of requests that name none."""
        return self._default or next((model.name for model in self.generators), None)

    @property
    def unavailable_reason(self) -> str | None:
        """Reason that requests cannot be answered; None if they can."""
        if self.draining:
            return "the service is shutting down"
        if self._batchers:
            return None
        reasons = "; ".join(f"{error.path}: {error.reason}" for error in self.errors)
        return f"every model was refused: {reasons}" if reasons else self.none_found

    @property
    def busy(self) -> bool:
        """True if any model has rows that wait or run; any thread may ask."""
        return any(batcher.queue.busy for batcher in list(self._batchers.values()))

    def check_ready(self) -> None:
        """Raise NotReady if requests cannot be answered."""
        if (reason := self.unavailable_reason) is not None:
            raise NotReady(reason, headers=RETRY)

    def check_alive(self) -> None:
        """Raise Stuck if only a restart helps: a batch runs for longer than the setting."""
        longest = max((batcher.queue.longest_run_s for batcher in self._all), default=0.0)
        if longest > self._stuck_after_s:
            raise Stuck(f"a batch has been running for {longest:.1f} s")

    def model(self, name: str | None, version: str | None = None, place: str = "body") -> OnnxModel:
        """Return the model of this name, or the default one. Raises UnknownModel and NotReady.

        `version` asks for one version only; `place` is where the request names them.
        """
        if not self._batchers:
            raise NotReady("no model is served; /readyz says why", headers=RETRY)
        if (name := name if name is not None else self.default) is None:
            raise NotReady("no generator is served; /models lists what is", headers=RETRY)
        model = self.batcher(name, place).model
        if version not in (None, model.version):
            wrong = FieldError("/version", version, [model.version], place)
            raise UnknownModel(f"model '{name}' is served in version {model.version} only", [wrong])
        return model

    def generator(self, name: str | None, place: str = "body") -> OnnxModel:
        """Return the generator of this name, or the default one. Raises UnknownModel and NotReady."""
        if name is not None and name not in self._batchers and (known := [one.name for one in self.generators]):
            raise unknown_model(name, known, place)
        model = self.model(name, place=place)
        if model.metadata.kind != "generator":
            wrong = FieldError("/model", name, [one.name for one in self.generators], place)
            raise UnknownModel(f"model '{name}' is a {model.metadata.kind}; this needs a generator", [wrong])
        return model

    def batcher(self, name: str, place: str = "body") -> Batcher:
        """Return the batcher of a model. Raises UnknownModel, also if it was unloaded meanwhile."""
        if name not in self._batchers:
            raise unknown_model(name, sorted(self._batchers), place)
        return self._batchers[name]

    def apply(self, name: str, model: OnnxModel | None, errors: list[LoadError]) -> None:
        """Serve what was loaded, and keep what was refused."""
        self._errors.pop(name, None)
        if errors:
            self._errors[name] = errors
        for error in errors:
            logger.error("model refused: %s: %s", error.path, error.reason)
        batcher = self._batchers.get(name)
        if model is None or (batcher is not None and batcher.model is model):
            return
        if batcher is None:
            self._batchers[name] = batcher = self._make_batcher(model)
            self._all.add(batcher)
        batcher.model = model
        self.changes += 1
        extra = {"digest": model.digest, "seconds": round(model.load_s, 3)}
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


class ModelLoader:
    """Keeps a registry like the models folder and the control state. Changes happen one at a time."""

    def __init__(
        self, repository: ModelRepository, registry: ModelRegistry, control: ControlState, thread: Executor
    ) -> None:
        self.repository, self._registry, self._control, self._thread = repository, registry, control, thread
        self._changing = asyncio.Lock()
        self._seen: Fingerprint = {}
        self._recorded: dict[str, int] = {}

    def load_all(self) -> None:
        """Load every model in the folder, at the start; one that is refused does not affect the others.

        Raises ProviderMissing if the provider is missing.
        """
        self._registry.none_found = self.repository.unavailable_reason()
        self._seen, self._recorded = self.repository.fingerprint() or {}, self._control.read()
        for name in self._seen:
            if self._recorded.get(name, 0) >= 0:
                self._registry.apply(name, *self.repository.load(name, None))
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
            found, recorded = await self._off_loop(lambda: (self.repository.fingerprint(), self._control.read()))
            if found is None:  # unreadable: what is served stays
                self._registry.none_found = reason = self.repository.unavailable_reason()
                if self._registry.models and ROOT not in self._registry.known:
                    self._registry.apply(ROOT, None, [LoadError(ROOT, reason)])
                return
            if everything:
                self._registry.none_found = self.repository.unavailable_reason()
            for name in sorted({*found, *self._registry.known}):
                if recorded.get(name, 0) < 0:
                    self._registry.remove(name, UNLOADED)
                elif name in found:
                    before = self._seen.get(name), self._recorded.get(name)
                    if everything or before != (found[name], recorded.get(name)):
                        await self._load(name)
                elif everything or name not in self._seen:  # for two looks, so that a folder may be replaced
                    self._registry.remove(name, "its files are gone")
            self._seen, self._recorded = found, recorded

    async def load(self, name: str) -> OnnxModel:
        """Serve the highest version of a model, by request. Raises UnknownModel, and LoadRefused.

        If it is refused, the version served before stays.
        """
        async with self._changing:
            found = await self._off_loop(self.repository.fingerprint) or {}
            if name not in found and self._served(name) is None:
                raise unknown_model(name, sorted(map(printable, found)), "path")
            model, errors = await self._load(name)
            if model is not None:
                self._recorded[name] = await self._off_loop(lambda: self._control.record(name, loaded=True))
                self._seen[name] = found.get(name, {})
        if model is None or errors:
            reasons = "; ".join(f"{error.path}: {error.reason}" for error in errors)
            now = f"version {model.version} is served" if model else "no version is served"
            raise LoadRefused(f"{reasons}; {now}")
        return model

    async def unload(self, name: str) -> OnnxModel:
        """Stop serving a model, by request; what was accepted is still computed. Raises UnknownModel."""
        async with self._changing:
            model = self._registry.batcher(name, "path").model
            await self._off_loop(lambda: self._control.record(name, loaded=False))
            self._registry.remove(name, UNLOADED)
        return model

    def _served(self, name: str) -> OnnxModel | None:
        return next((model for model in self._registry.models if model.name == name), None)

    async def _load(self, name: str) -> LoadResult:
        """Load a model off the event loop, then serve it; a missing provider ends nothing by now."""
        served = self._served(name)
        try:
            result = await self._off_loop(lambda: self.repository.load(name, served))
        except ProviderMissing as error:
            result = served, [LoadError(name, str(error))]
        self._registry.apply(name, *result)
        return result

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def unknown_model(name: str, known: list[str], place: str) -> UnknownModel:
    """Return the error for a model that is not among those known; `place` is where the request names it."""
    pointer = "/name" if place == "path" else "/model"
    detail = f"no model {name!r:.80}; there are {', '.join(known) or 'none'}"
    return UnknownModel(detail, [FieldError(pointer, name, known, place)])
