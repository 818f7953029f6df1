"""/v2/repository: which models there are, and loading and unloading them while the service runs."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request

from service.engine.model_changes import ModelChanges
from service.engine.model_registry import ModelRegistry
from service.engine.model_repository import MODEL_FILE, ModelRepository
from service.routes.openapi import problems
from service.routes.protocol_paths import TAGS, json_body
from service.wire.parsing import parse_body
from service.wire.repository_schemas import IndexEntry, IndexRequest, LoadRequest, UnloadRequest

REPOSITORY = "/v2/repository"


class ModelControlRoutes:
    """The protocol's repository extension. Versions are never edited in place: a change is a new version."""

    def __init__(self, repository: ModelRepository, registry: ModelRegistry, changes: ModelChanges) -> None:
        self._repository, self._registry, self._changes = repository, registry, changes

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        below = f"{REPOSITORY}/models/{{name}}"
        for path, endpoint, body, statuses in (
            (f"{REPOSITORY}/index", self.list_repository, IndexRequest, (400, 408, 413, 415, 422)),
            (f"{below}/load", self.load_model, LoadRequest, (400, 404, 408, 413, 415, 422, 503)),
            (f"{below}/unload", self.unload_model, UnloadRequest, (400, 404, 408, 413, 415, 422, 503)),
        ):
            app.post(
                path,
                tags=TAGS,
                responses=problems(*statuses),
                openapi_extra=json_body(body, required=False),
            )(endpoint)

    async def list_repository(self, request: Request) -> list[IndexEntry]:
        """List every version in the models folder and in memory: served, refused or not loaded."""
        wanted = parse_body(IndexRequest, await request.body())
        found = await asyncio.to_thread(self._repository.places)
        refused = {one.path: one.reason for one in self._registry.refused}
        served = [(model.name, model.version) for model in self._registry.models]
        entries = [_served(name, version) for name, version in served]
        if not wanted.ready:
            entries += [
                IndexEntry(
                    name=name, version=version, state="UNAVAILABLE", reason=_reason(refused, name, version)
                )
                for name, version in found
                if (name, version) not in served
            ]
        return sorted(entries, key=lambda entry: (entry.name, len(entry.version), entry.version))

    async def load_model(self, request: Request, name: str) -> IndexEntry:
        """Load the highest version of a model, new or anew; the one before it answers until then.

        A version that is refused changes nothing: the answer says why.
        """
        parse_body(LoadRequest, await request.body())
        return _served(name, await self._changes.load(name))

    async def unload_model(self, request: Request, name: str) -> IndexEntry:
        """Serve a model no longer; what was accepted is answered."""
        parse_body(UnloadRequest, await request.body())
        version = await self._changes.unload(name)
        return IndexEntry(name=name, version=version, state="UNAVAILABLE", reason="unloaded")


def _served(name: str, version: str) -> IndexEntry:
    return IndexEntry(name=name, version=version, state="READY", reason="")


def _reason(refused: dict[str, str], name: str, version: str) -> str:
    return refused.get(f"{name}/{version}/{MODEL_FILE}", "not loaded")
