"""How what is served changes while requests come in.

A new version is opened and warmed beside the old one, in a thread of its own, and only then served.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from service.engine.model_registry import ModelRegistry, unknown_model
from service.engine.model_repository import ModelRepository, Opening, Refused
from service.engine.onnx_model import OnnxModel
from service.errors import LoadRefused, ProviderMissing

logger = logging.getLogger("cogan.models")


class ModelLoader:
    """Brings models from the repository into the registry. Changes happen one at a time."""

    def __init__(self, repository: ModelRepository, registry: ModelRegistry, thread: Executor) -> None:
        self.repository, self._registry, self._thread = repository, registry, thread
        self._changing = asyncio.Lock()

    def open_all(self) -> None:
        """Open every model in the folder, at the start; one that is refused does not hinder the others.

        Raises ProviderMissing where the provider is not there.
        """
        self._registry.absence = self.repository.absence()
        for name in self.repository.names():
            self._registry.settle(name, self.repository.open(name, None))
        if trouble := self._registry.trouble:
            logger.error("no model is served: %s", trouble)

    def served(self) -> list[str]:
        """Return the digests of the served models, by name."""
        return [model.digest for model in self._registry.models]

    async def load(self, name: str) -> OnnxModel:
        """Serve the highest version of a model, new or anew. Raises UnknownModel, and LoadRefused.

        Where it is refused, what was served before goes on being served.
        """
        loop = asyncio.get_running_loop()
        async with self._changing:
            names = await loop.run_in_executor(self._thread, self.repository.names)
            if name not in names and self._served(name) is None:
                raise unknown_model(name, names, "path")
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
            self._registry.absence = await loop.run_in_executor(self._thread, self.repository.absence)
            names = await loop.run_in_executor(self._thread, self.repository.names)
            there = {*names, *(model.name for model in self._registry.models)}
            self._registry.forget_refusals(but_of=there)
            for name in sorted(there):
                await self._renew(name)
        models = [model.name for model in self._registry.models]
        logger.info("models looked at again", extra={"models": models})

    async def unload(self, name: str) -> OnnxModel:
        """Serve a model no longer; what was asked before is still drawn. Raises UnknownModel."""
        async with self._changing:
            model = self._registry.remove(name)
        logger.info("model unloaded: %s/%s", name, model.version)
        return model

    async def _renew(self, name: str) -> Opening:
        """Open a model off the event loop, then serve it; at this time a missing provider ends nothing."""
        served, loop = self._served(name), asyncio.get_running_loop()
        try:
            opening = await loop.run_in_executor(self._thread, self.repository.open, name, served)
        except ProviderMissing as error:
            opening = Opening(served, (Refused(name, str(error)),), 0.0)
        self._registry.settle(name, opening)
        if (model := opening.model) is not None and model is not served:
            extra = {"digest": model.digest, "seconds": round(opening.seconds, 3)}
            logger.info("model served: %s/%s", name, model.version, extra=extra)
        return opening

    def _served(self, name: str) -> OnnxModel | None:
        return next((model for model in self._registry.models if model.name == name), None)
