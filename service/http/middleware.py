"""ASGI middleware for every request: its id, access, body, disconnect, cached responses, log and metrics.

Pure ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Mapping
from functools import cache
from typing import cast

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.models import ModelRegistry
from service.errors import FieldError, NotReady, SlowBody, TooLarge, UnsupportedMediaType
from service.http.access import POLLED, AccessControl
from service.http.problems import EXPECTED, problem_response
from service.http.response_cache import ResponseCache
from service.settings import Settings
from service.telemetry.logs import REQUEST_ID, TRACE_ID, log_request
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import current_trace, trace_route

logger = logging.getLogger("cogan.requests")
VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
HEADERS = "cogan.headers"  # in the scope: the first of each name, of lists all
OUTSIDE_PATH = "cogan.outside_path"  # in the scope: the path of a request by an alias
BODY_SIZE = "cogan.body_size"  # in the scope: bytes of the request's body
LISTS = (b"accept", b"if-none-match")  # whose lines are parts of one list (RFC 9110, section 5.3)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
UPLOADS = {"/translate"}  # whose bodies have a limit of their own
WATCH_AFTER_S = 0.02  # before this, watching for a disconnect is not worth a task
CLIENT_LEFT = 499  # as nginx logs it
SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
UNFRAMED = [(b"x-frame-options", b"DENY"), (b"content-security-policy", b"frame-ancestors 'none'")]


def header(request: Request, name: str) -> str | None:
    """Return a header of a request; `name` is in lower case. Starlette would search them all for each."""
    value: bytes | None = request.scope[HEADERS].get(name.encode())
    return value.decode("latin-1") if value is not None else None


class ResponseSender:
    """Sends a response with the headers that every response has, and records its status and progress."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers
        self.status = CLIENT_LEFT
        self.started = self.ended = False
        self.begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the request began."""
        return time.perf_counter() - self.begun

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            if self.status >= 400:
                self._headers.append((b"server-timing", b"total;dur=%.3f" % (self.seconds * 1e3)))
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)


class RequestMiddleware:
    """Outermost layer around the routes of one port."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        registry: ModelRegistry,
        access: AccessControl | None,
        cached: ResponseCache | None,
        direct: Mapping[tuple[str, str], Route],
    ) -> None:
        """Take the routes that requests go straight to, by method and path."""
        self._app, self._settings, self._metrics, self._registry = app, settings, metrics, registry
        self._access, self._cached, self._direct = access, cached, direct
        self._requests = cache(metrics.requests.labels)  # the library looks labels up under a lock
        self._durations = cache(metrics.request_duration.labels)
        self._headers = SECURITY_HEADERS + UNFRAMED
        if settings.frame_origins is not None:
            ancestors = settings.frame_origins.replace(",", " ").encode()
            self._headers = [*SECURITY_HEADERS, (b"content-security-policy", b"frame-ancestors " + ancestors)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[HEADERS] = headers = dict(reversed(scope["headers"]))  # of several lines the first, as Starlette has it
        if len(headers) < len(scope["headers"]):
            lines = {name: [value for key, value in scope["headers"] if key == name] for name in LISTS}
            headers |= {name: b", ".join(values) for name, values in lines.items() if values}
        request_id = headers.get(b"x-request-id", b"")
        if not VALID_ID.fullmatch(request_id):
            request_id = b"%032x" % random.getrandbits(128)  # it need not be unguessable
        token = REQUEST_ID.set(request_id.decode())
        trace = TRACE_ID.set(current_trace() or _trace_id(headers.get(b"traceparent")))
        own = [(b"x-request-id", request_id), *self._headers]
        if self._registry.draining:
            own.append((b"connection", b"close"))
        sender = ResponseSender(send, own)
        headless = scope["method"] == "HEAD"  # answered as GET; uvicorn leaves out the body
        inner = dict(scope, method="GET", headless=True) if headless else scope
        self._metrics.in_flight += 1
        try:
            await self._answer(inner, headers, receive, sender)
        finally:
            self._metrics.in_flight -= 1
            route = getattr(inner.get("route"), "path", "unmatched")
            method, seconds = scope["method"] if scope["method"] in METHODS else "OTHER", sender.seconds
            self._requests(route, method, sender.status).inc()
            self._durations(route).observe(seconds)
            if route not in POLLED:
                log_request(method, route, sender.status, seconds)
            TRACE_ID.reset(trace)
            REQUEST_ID.reset(token)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, sender: ResponseSender
    ) -> None:
        try:
            if self._access is not None:
                self._access.check(scope, headers)
            settings = self._settings
            limit = settings.max_upload_bytes if scope["path"] in UPLOADS else settings.max_body_bytes
            if (body := await _read_body(receive, headers, limit, settings.body_timeout_s)) is None:
                return
            scope[BODY_SIZE] = len(body)
            if self._cached is not None and (found := self._cached.find(scope, headers, body)) is not None:
                for message in found:
                    await sender(message)
            else:
                await _run_watched(self._find_app(scope), scope, receive, body, sender)
        except asyncio.CancelledError:  # by the server, whose grace period is over
            if sender.started:
                raise
            late = NotReady("the service stopped before it computed this", headers={"Retry-After": "5"})
            await problem_response(late, scope["path"])(scope, receive, sender)
        except Exception as error:
            if not isinstance(error, EXPECTED):
                logger.exception("request failed")
            if sender.started:
                raise
            await problem_response(error, scope["path"])(scope, receive, sender)

    def _find_app(self, scope: Scope) -> ASGIApp:
        """Return what answers: a direct route itself, as FastAPI's layers would cost it 7 % more time."""
        if (route := self._direct.get((scope["method"], scope["path"]))) is None:
            return self._app
        scope["route"] = route  # as routing would set it
        trace_route(scope["method"], route.path)
        return route.app


async def _read_body(receive: Receive, headers: dict[bytes, bytes], limit: int, timeout_s: float) -> bytes | None:
    """Return a request's whole body; None if the client left meanwhile.

    Raises TooLarge, SlowBody, and UnsupportedMediaType for a compressed one.
    """
    size, body = int(headers.get(b"content-length", b"0")), bytearray()
    if not size and b"transfer-encoding" not in headers:
        return b"" if (await receive())["type"] == "http.request" else None
    coding = headers.get(b"content-encoding", b"").decode("latin-1").lower()
    if size <= limit and coding not in ("", "identity"):
        detail = f"Content-Encoding {coding!r:.40} is not supported; send the body uncompressed"
        raise UnsupportedMediaType(detail, headers={"Accept-Encoding": "identity"})
    try:
        async with asyncio.timeout(timeout_s):
            while max(size, len(body)) <= limit:
                if (message := await receive())["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if not message.get("more_body", False) and len(body) <= limit:
                    return bytes(body)
    except TimeoutError:
        detail = f"the body did not arrive within {timeout_s:g} seconds"
        raise SlowBody(detail, headers={"Connection": "close"}) from None
    wrong = FieldError("", f"{max(size, len(body))} bytes or more", f"at most {limit} bytes")  # the rest is discarded
    raise TooLarge(f"the body is larger than {limit} bytes; send less", [wrong])


async def _run_watched(app: ASGIApp, scope: Scope, receive: Receive, body: bytes, sender: ResponseSender) -> None:
    """Run an app on a request whose body is read, and cancel it when the client leaves."""
    loop, unread, watching = asyncio.get_running_loop(), [body], list[asyncio.Task[None]]()
    left, answering = asyncio.Event(), cast("asyncio.Task[None]", asyncio.current_task())

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        if not sender.ended:
            answering.cancel()

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    alarm = loop.call_later(WATCH_AFTER_S, lambda: watching.append(loop.create_task(watch())))
    try:
        await app(scope, replay, sender)
    except asyncio.CancelledError:
        if not left.is_set():
            raise
        answering.uncancel()
    finally:
        alarm.cancel()
        for task in watching:
            task.cancel()


def _trace_id(traceparent: bytes | None) -> str | None:
    """Return the trace id of a W3C Trace Context header, if it is valid."""
    parsed = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return parsed[1].decode() if parsed else None
