"""What every request passes before any route: identity, limits, a watch on the client, log and metrics.

Pure ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooLarge
from service.logs import REQUEST_ID
from service.metrics import Metrics
from service.problems import problem_response
from service.readiness import Readiness

logger = logging.getLogger("cogan.access")
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
QUIET_ROUTES = {"/livez", "/readyz", "/metrics"}  # asked every few seconds by machines
CLIENT_LEFT = 499  # as nginx logs it


class RequestMiddleware:
    """Outermost layer: gives a request its id, and sees to it that it is answered, counted and logged."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, readiness: Readiness, max_body_bytes: int) -> None:
        self._app, self._metrics, self._readiness = app, metrics, readiness
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; what is not HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not SANE_ID.fullmatch(request_id):
            request_id = b"%032x" % random.getrandbits(128)  # unguessable it need not be
        token = REQUEST_ID.set(request_id.decode())
        start = time.perf_counter()
        reply = _Reply(send, request_id, self._readiness.draining, scope["method"] == "HEAD")
        inner = dict(scope, method="GET") if reply.headless else scope
        self._metrics.in_flight.inc()
        try:
            await self._answer(inner, headers, receive, reply)
        finally:
            self._metrics.in_flight.dec()
            self._record(inner, scope["method"], reply.status, time.perf_counter() - start)
            REQUEST_ID.reset(token)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, reply: _Reply
    ) -> None:
        try:
            body = await _read_body(receive, headers, self._max_body_bytes)
            if body is not None:
                await _watched(receive, body, reply, lambda replay: self._app(scope, replay, reply))
        except Exception as error:
            if not isinstance(error, TooLarge):
                logger.exception("request failed")
            if reply.started:
                raise
            await problem_response(error)(scope, receive, reply)

    def _record(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = method if method in METHODS else "OTHER"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_duration.labels(route).observe(seconds)
        if route not in QUIET_ROUTES:
            duration_ms = round(seconds * 1e3, 3)
            extra = {"method": method, "route": route, "status": status, "duration_ms": duration_ms}
            logger.info("%s %s %d", method, route, status, extra=extra)


class _Reply:
    """Sends an answer with the headers that every answer has, and remembers how far it came."""

    def __init__(self, send: Send, request_id: bytes, closing: bool, headless: bool) -> None:
        self._send, self._closing = send, closing
        self._request_id = request_id
        self.headless = headless  # HEAD: the headers of GET alone
        self.status = CLIENT_LEFT
        self.started = self.ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            extra = [(b"x-request-id", self._request_id)]
            if self._closing:
                extra.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
            if self.headless:
                message = {**message, "body": b""}
        await self._send(message)


async def _read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> bytes | None:
    """Read a request's whole body; None where the client left meanwhile. Raises TooLarge."""
    body = b""
    size = int(headers.get(b"content-length", b"0"))
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        size = max(size, len(body))
        if not message.get("more_body", False):
            break
    if size > limit:
        raise TooLarge(f"the body is larger than {limit} bytes", headers={"Connection": "close"})
    return body


async def _watched(
    receive: Receive, body: bytes, reply: _Reply, answer: Callable[[Receive], Awaitable[Any]]
) -> None:
    """Let a request be answered, and cancel that when the client leaves."""
    answering = asyncio.current_task()
    assert answering is not None
    left, unread = asyncio.Event(), [body]

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        if not reply.ended:
            answering.cancel()

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    watching = asyncio.create_task(watch())
    try:
        await answer(replay)
    except asyncio.CancelledError:
        if not left.is_set():
            raise
        answering.uncancel()
    finally:
        watching.cancel()
