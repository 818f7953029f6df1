"""/v2/repository: the models there are, and loading and unloading them by request, if that is turned on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel

from service.api.docs import json_body, problems
from service.api.options import parse_body, require_json
from service.engine.models import MODEL_FILE, ModelLoader, ModelRegistry, ModelRepository, printable
from service.errors import FieldError, Unsupported
from service.http.access import refuse_cross_site
from service.v2.routes import TAGS
from service.v2.schemas import ControlRequest, IndexEntry, IndexRequest

Body = TypeVar("Body", bound=BaseModel)


class ModelControlRoutes:
    """The protocol's repository extension. Versions are never edited in place: a change is a new version."""

    def __init__(self, registry: ModelRegistry, loader: ModelLoader) -> None:
        self._registry, self._loader = registry, loader

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        common = (400, 403, 408, 413, 415, 422)
        for path, endpoint, body, statuses in (
            ("index", self.list_repository, IndexRequest, common),
            ("models/{name}/load", self.load_model, ControlRequest, (*common, 404, 501)),
            ("models/{name}/unload", self.unload_model, ControlRequest, (*common, 404)),
        ):
            extra, responses = json_body(body, required=False), problems(*statuses)
            app.post(f"/v2/repository/{path}", tags=TAGS, responses=responses, openapi_extra=extra)(endpoint)

    async def list_repository(self, request: Request) -> list[IndexEntry]:
        """List every version in the models folder and in memory: served, refused or not loaded."""
        wanted = await _read(request, IndexRequest)
        reasons = {error.path: error.reason for error in self._registry.errors}
        entries = {(model.name, model.version): _ready(model.name, model.version) for model in self._registry.models}
        found = [] if wanted.ready else await asyncio.to_thread(_versions, self._loader.repository)
        for name, version in found:
            reason = reasons.get(f"{name}/{version}/{MODEL_FILE}", "not loaded")
            entry = IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=reason)
            entries.setdefault((name, version), entry)
        return sorted(entries.values(), key=lambda entry: (entry.name, len(entry.version), entry.version))

    async def load_model(self, request: Request, name: str) -> IndexEntry:
        """Load the highest version of a model; the one before it answers until then.

        A version that is refused changes nothing: the response says why.
        """
        parameters = (await _read(request, ControlRequest)).parameters or {}
        if files := [key for key in parameters if key.startswith("file:")]:
            wrong = FieldError("/parameters", files[0], "no files: the models folder holds them")
            raise Unsupported("models are loaded from the models folder; a request cannot send files", [wrong])
        return _ready(name, (await self._loader.load(name)).version)

    async def unload_model(self, request: Request, name: str) -> IndexEntry:
        """Stop serving a model; what was accepted is answered."""
        await _read(request, ControlRequest)
        model = await self._loader.unload(name)
        return IndexEntry(name=name, version=model.version, state="UNAVAILABLE", reason="unloaded")


async def _read(request: Request, model: type[Body]) -> Body:
    """Return a request's body, which may be empty. Raises Forbidden for one that another site's page sends."""
    refuse_cross_site(request.scope)
    if "content-type" in request.headers:  # the protocol's clients may send none; browsers do with every body
        require_json(request)
    return parse_body(model, await request.body())


def _versions(repository: ModelRepository) -> list[tuple[str, str]]:
    """Return all names with their versions, up to what cannot be read."""
    found = []
    with suppress(OSError):
        for name in repository.fingerprint() or ():
            versions, misnumbered = repository.versions(name)
            found += [(printable(name), printable(version)) for version in dict.fromkeys(versions + misnumbered)]
    return found


def _ready(name: str, version: str) -> IndexEntry:
    return IndexEntry(name=name, version=version, state="READY", reason="")
