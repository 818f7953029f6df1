"""Response cache: a repeated request is answered from its bytes, without routing, parsing or inference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Message, Scope

from service.telemetry.metrics import Metrics
from service.telemetry.tracing import trace_route

MAX_KEY = 2048  # bytes of a request that is cached
OVERHEAD = 2048  # bytes of a cached response besides its body, roughly
SCOPE_KEY = "cogan.cache_key"
TIMING = (b"server-timing", b"cache;dur=0.000")
NOT_OF_200 = frozenset((b"server-timing",))  # of the first response
NOT_OF_304 = NOT_OF_200 | {b"content-length", b"content-type", b"content-disposition"}
RequestKey = tuple[str, str, bytes, bytes, bytes, bytes]


class CachedResponse(NamedTuple):
    """A response: its route, headers, ETag and body. Without an ETag there is no 304; without a body, only that."""

    route: Any
    headers: list[tuple[bytes, bytes]]
    etag: str | None
    body: bytes | None

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        return len(self.body or b"") + OVERHEAD


class ResponseCache:
    """Responses by request, bounded in bytes, the least recently used dropped first, all when models change.

    It belongs to an event loop.
    """

    def __init__(self, max_bytes: int, changes: Callable[[], int], metrics: Metrics) -> None:
        """Take `changes`, which returns how often the served models have changed."""
        self._max_bytes, self._changes, self._metrics = max_bytes, changes, metrics
        self._size, self._seen = 0, changes()
        self._responses: OrderedDict[RequestKey, CachedResponse] = OrderedDict()

    def find(self, scope: Scope, headers: dict[bytes, bytes], body: bytes) -> tuple[Message, Message] | None:
        """Return the messages of the cached response to a request, 200 or 304; None if there is none."""
        if (key := _request_key(scope, headers, body)) is None:
            return None
        self._drop_if_changed()
        scope[SCOPE_KEY] = key, self._seen
        if (cached := self._responses.get(key)) is None:
            return None
        condition = headers.get(b"if-none-match", b"").decode("latin-1")
        unchanged = cached.etag is not None and matches(condition, cached.etag)
        content = b"" if unchanged else cached.body
        if content is None:
            return None
        self._responses.move_to_end(key)
        self._metrics.cache_hits.inc()
        scope["route"] = cached.route  # as routing would set it
        trace_route(scope["method"], cached.route.path)
        left_out = NOT_OF_304 if unchanged else NOT_OF_200
        sent = [*(header for header in cached.headers if header[0] not in left_out), TIMING]
        start = {"type": "http.response.start", "status": 304 if unchanged else 200, "headers": sent}
        return start, {"type": "http.response.body", "body": content}

    def store(self, scope: Scope, response: Response, etag: str | None) -> None:
        """Store a response, 200 or 304, that is the same until the models change, if the cache has room for it."""
        key, seen = scope.get(SCOPE_KEY, (None, None))
        body = bytes(response.body) if response.status_code == HTTPStatus.OK else None
        cached = CachedResponse(scope["route"], response.raw_headers, etag, body)
        self._drop_if_changed()
        if key is None or seen != self._seen or cached.size > self._max_bytes:  # or models that are gone have answered
            return
        if (old := self._responses.pop(key, None)) is not None:
            self._size -= old.size
        self._responses[key] = cached
        self._size += cached.size
        while self._size > self._max_bytes:
            self._size -= self._responses.popitem(last=False)[1].size

    def _drop_if_changed(self) -> None:
        if self._seen != (changes := self._changes()):
            self._seen, self._size = changes, 0
            self._responses.clear()


def matches(if_none_match: str, etag: str) -> bool:
    """Return whether the header If-None-Match names an entity tag, strong or weak, or any."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return f'"{etag}"' in tags or "*" in tags


def _request_key(scope: Scope, headers: dict[bytes, bytes], body: bytes) -> RequestKey | None:
    """Return the cache key of a request, or None if it is too long to cache.

    A request with a timeout of its own is left to its route, which checks that header.
    """
    accept, kind = headers.get(b"accept", b""), headers.get(b"content-type", b"") if body else b""
    length = len(scope["path"]) + len(scope["query_string"]) + len(body) + len(accept) + len(kind)
    if b"x-request-timeout" in headers or length > MAX_KEY:
        return None
    return scope["method"], scope["path"], scope["query_string"], body, accept, kind
