"""Which models are served now, and how that changes while requests come in.

A new version is opened and warmed beside the old one, in a thread of its own; then it takes the old one's
place in the batcher at once. What was asked before is still drawn by the model that it was asked of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from service.engine.batching import Batcher
from service.engine.model_repository import ModelRepository, Opening, Refused
from service.engine.onnx_model import OnnxModel
from service.errors import FieldError, LoadRefused, NotReady, ProviderMissing, UnknownModel
from service.telemetry.metrics import Metrics

logger = logging.getLogger("cogan.models")


class ModelRegistry:
    """The batchers by name of model. All state belongs to the event loop; changes happen one at a time."""

    def __init__(
        self,
        repository: ModelRepository,
        make_batcher: Callable[[OnnxModel], Batcher],
        default: str | None,
        loader: Executor,
        metrics: Metrics,
    ) -> None:
        """`default` names the model of requests that name none; otherwise it is the first by name."""
        self.repository, self._make_batcher, self._default = repository, make_batcher, default
        self._loader, self._metrics = loader, metrics
        self._batchers: dict[str, Batcher] = {}
        self._refused: dict[str, tuple[Refused, ...]] = {}
        self._absence = "no model is loaded yet"
        self.changes = 0  # how often what is served has changed
        self._changing = asyncio.Lock()

    @property
    def models(self) -> list[OnnxModel]:
        """The served models, by name."""
        return [self._batchers[name].model for name in sorted(self._batchers)]

    @property
    def refused(self) -> list[Refused]:
        """What was refused when it was last looked at, by name."""
        return [one for name in sorted(self._refused) for one in self._refused[name]]

    @property
    def default(self) -> str | None:
        """Name of the model of a request that names none."""
        return self._default or min(self._batchers, default=None)

    @property
    def trouble(self) -> str | None:
        """Why no model can answer; None where one can."""
        if self._batchers:
            return None
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in self.refused)
        return f"every model was refused: {reasons}" if reasons else self._absence

    @property
    def longest_run(self) -> float:
        """The seconds since when the oldest batch of any model is being drawn; 0 where none is."""
        return max((batcher.longest_run for batcher in self._batchers.values()), default=0.0)

    def model(self, name: str | None, version: str | None = None, place: str = "body") -> OnnxModel:
        """Return the model of this name, or the default one. Raises UnknownModel and NotReady.

        `version` asks for one version alone; `place` is where the request names them.
        """
        name = name if name is not None else self.default
        if name is None or not self._batchers:
            raise NotReady("no model is served; /readyz says why", headers={"Retry-After": "5"})
        if name not in self._batchers:
            raise _unknown(name, sorted(self._batchers), place)
        model = self._batchers[name].model
        if version not in (None, model.version):
            wrong = FieldError("/version", version, [model.version], place)
            raise UnknownModel(f"model '{name}' is served in version {model.version} alone", [wrong])
        return model

    def batcher(self, name: str) -> Batcher:
        """Return the batcher of a model. Raises UnknownModel where it was unloaded meanwhile."""
        if name not in self._batchers:
            raise _unknown(name, sorted(self._batchers), "body")
        return self._batchers[name]

    def open_all(self) -> None:
        """Open every model in the folder, at the start; one that is refused does not hinder the others.

        Raises ProviderMissing where the provider is not there.
        """
        self._absence = self.repository.absence()
        for name in self.repository.names():
            self._settle(name, self.repository.open(name, None))
        if self.trouble:
            logger.error("no model is served: %s", self.trouble)

    async def load(self, name: str) -> OnnxModel:
        """Serve the highest version of a model, new or anew. Raises UnknownModel, and LoadRefused.

        Where it is refused, what was served before goes on being served.
        """
        loop = asyncio.get_running_loop()
        async with self._changing:
            names = await loop.run_in_executor(self._loader, self.repository.names)
            if name not in names and name not in self._batchers:
                raise _unknown(name, names, "path")
            opening = await self._renew(name)
        if opening.refused or opening.model is None:
            reasons = "; ".join(f"{one.path}: {one.reason}" for one in opening.refused)
            now = f"version {opening.model.version} is served" if opening.model else "no version is served"
            raise LoadRefused(f"{reasons}; {now}")
        return opening.model

    async def reload(self) -> None:
        """Serve the highest version of every model in the folder. Nothing that is served is taken away."""
        loop = asyncio.get_running_loop()
        async with self._changing:
            self._absence = await loop.run_in_executor(self._loader, self.repository.absence)
            names = await loop.run_in_executor(self._loader, self.repository.names)
            for name in sorted({*names, *self._batchers}):
                await self._renew(name)
        logger.info("models looked at again", extra={"models": [model.name for model in self.models]})

    async def unload(self, name: str) -> OnnxModel:
        """Serve a model no longer; what was asked before is still drawn. Raises UnknownModel."""
        async with self._changing:
            batcher = self._batchers.pop(name, None)
            if batcher is None:
                raise _unknown(name, sorted(self._batchers), "path")
            self.changes += 1
            self._refused.pop(name, None)
            self._absence = "every model was unloaded"
            self._metrics.models_refused.set(len(self.refused))
            self._metrics.model_info.remove(*_labels(batcher.model))
            self._metrics.model_load.remove(name)
            self._metrics.queue_depth.remove(name)
        logger.info("model unloaded: %s/%s", name, batcher.model.version)
        return batcher.model

    async def _renew(self, name: str) -> Opening:
        """Open a model off the event loop, then serve it; at this time a missing provider ends nothing."""
        served = self._batchers[name].model if name in self._batchers else None
        loop = asyncio.get_running_loop()
        try:
            opening = await loop.run_in_executor(self._loader, self.repository.open, name, served)
        except ProviderMissing as error:
            opening = Opening(served, (Refused(name, str(error)),), 0.0)
        self._settle(name, opening)
        if (model := opening.model) is not None and model is not served:
            extra = {"digest": model.digest, "seconds": round(opening.seconds, 3)}
            logger.info("model served: %s/%s", name, model.version, extra=extra)
        return opening

    def _settle(self, name: str, opening: Opening) -> None:
        """Take over what came of opening a model."""
        self._refused.pop(name, None)
        if opening.refused:
            self._refused[name] = opening.refused
        for one in opening.refused:
            logger.error("model refused: %s: %s", one.path, one.reason)
        self._metrics.models_refused.set(len(self.refused))
        if opening.model is not None:
            self._serve(opening.model, opening.seconds)

    def _serve(self, model: OnnxModel, seconds: float) -> None:
        """Let a model draw what is asked from now on."""
        batcher = self._batchers.get(model.name)
        if batcher is None:
            self._batchers[model.name] = self._make_batcher(model)
        elif batcher.model is model:
            return
        else:
            self._metrics.model_info.remove(*_labels(batcher.model))
            batcher.model = model
        self.changes += 1
        self._metrics.model_info.labels(*_labels(model)).set(1)
        self._metrics.model_load.labels(model.name).set(seconds)


def _labels(model: OnnxModel) -> tuple[str, ...]:
    return model.name, model.version, model.digest, model.provider


def _unknown(name: str, known: list[str], place: str) -> UnknownModel:
    pointer = "/name" if place == "path" else "/model"
    detail = f"no model {name!r:.80}; there are {', '.join(known) or 'none'}"
    return UnknownModel(detail, [FieldError(pointer, name, known, place)])
