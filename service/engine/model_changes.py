"""Changes of what is served while the service runs, in every process."""

from __future__ import annotations

from service.engine.model_loader import ModelLoader
from service.processes.siblings import Siblings


class ModelChanges:
    """Loads, unloads and looks again, in all processes in the same order."""

    def __init__(self, loader: ModelLoader, siblings: Siblings) -> None:
        self._loader, self._siblings = loader, siblings
        for verb in (self._load, self._unload, self._reload, self._served):
            siblings.on(verb.__name__, verb)

    async def load(self, name: str) -> str:
        """Serve the highest version of a model; return it. Raises as ModelLoader.load."""
        return str(await self._siblings.change(self._load.__name__, name))

    async def unload(self, name: str) -> str:
        """Serve a model no longer; return the version that was served. Raises UnknownModel."""
        return str(await self._siblings.change(self._unload.__name__, name))

    async def reload(self) -> None:
        """Serve the highest version of every model in the folder."""
        await self._siblings.change(self._reload.__name__)

    async def agree(self) -> None:
        """Let all look again where some serve other models, as the folder changed while they began."""
        first, *others = await self._siblings.gather(self._served.__name__)
        if any(other != first for other in others):
            await self.reload()

    async def _served(self, _: None) -> list[str]:
        return self._loader.served()

    async def _load(self, name: str) -> str:
        return (await self._loader.load(name)).version

    async def _unload(self, name: str) -> str:
        return (await self._loader.unload(name)).version

    async def _reload(self, _: None) -> None:
        await self._loader.reload()
