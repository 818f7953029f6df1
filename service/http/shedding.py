"""Load shedding: while a model's queue is full, what it would have to draw is refused as soon as it is named.

In a flood most requests are refused, and the less one costs, the more of the others are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.types import Scope

from service.engine.model_registry import ModelRegistry
from service.http.gathering import Gathering
from service.telemetry.tracing import trace_route

LONGEST_BODY = 4096  # bytes; a longer one takes long to read for a name, too


class Shedding:
    """Reads the name of the model alone; what names none that is served is left to its route."""

    def __init__(
        self, routes: Mapping[tuple[str, str], Any], registry: ModelRegistry, gathering: Gathering
    ) -> None:
        """Refuse what is asked of `routes`, which are by method and path, and gather what comes then."""
        self._routes, self._registry, self._gathering = routes, registry, gathering

    def check(self, scope: Scope, body: bytes) -> None:
        """Raise QueueFull where the model that is asked has no room for a single latent."""
        route = self._routes.get((scope["method"], scope["path"]))
        batchers = self._registry.batchers
        if route is None or not any(batcher.full for batcher in batchers.values()):
            return
        batcher = batchers.get(_named(scope, body, self._registry.default))
        if batcher is not None and batcher.full:
            scope["route"] = route  # as routing would have it
            trace_route(scope["method"], route.path)
            self._gathering.begin()
            raise batcher.refuse()


def _named(scope: Scope, body: bytes, default: str | None) -> str:
    """Return the model that a request names, or else the default one; nothing where that cannot be told."""
    if len(body) > LONGEST_BODY:
        return ""
    try:
        asked = from_json(body) if body else dict(parse_qsl(scope["query_string"].decode()))
        name = asked.get("model", default)
    except (ValueError, AttributeError):  # what is no JSON, or no object
        return ""
    return name if isinstance(name, str) else ""
