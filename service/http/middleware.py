"""What every request passes before any route: identity, limits, a watch on the client, log and metrics.

Pure ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.readiness import Readiness
from service.errors import NotReady
from service.http.bodies import read_body, watched
from service.http.gate import Gate
from service.http.gathering import Gathering
from service.http.problems import REFUSALS, problem_response
from service.http.repeats import Repeats, first_of_each
from service.http.replies import Reply
from service.settings import Settings
from service.telemetry.access_log import AccessLog
from service.telemetry.logs import REQUEST_ID, TRACE_ID
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import current_trace
from service.timers import Timers

logger = logging.getLogger("cogan.requests")
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
QUIET_ROUTES = {
    "/livez",
    "/readyz",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
}  # asked every few seconds by machines


class RequestMiddleware:
    """Outermost layer: gives a request its id, and sees to it that it is answered, counted and logged."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        access_log: AccessLog,
        timers: Timers,
        gathering: Gathering,
        repeats: Repeats | None,
        readiness: Readiness,
        gate: Gate | None,
        direct: Mapping[tuple[str, str], ASGIApp],
    ) -> None:
        """Take `direct` for what answers a method and a path without being routed."""
        self._app, self._metrics, self._readiness = app, metrics, readiness
        self._requests = cache(metrics.requests.labels)  # the library looks labels up under a lock
        self._durations = cache(metrics.request_duration.labels)
        self._access_log, self._timers, self._gate = access_log, timers, gate
        self._repeats, self._direct, self._gathering = repeats, direct, gathering
        self._max_body_bytes, self._body_timeout_s = settings.max_body_bytes, settings.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; what is not HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = first_of_each(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not SANE_ID.fullmatch(request_id):
            request_id = b"%032x" % random.getrandbits(128)  # unguessable it need not be
        token = REQUEST_ID.set(request_id.decode())
        trace = TRACE_ID.set(current_trace() or _trace_id(headers.get(b"traceparent")))
        reply = Reply(send, request_id, self._readiness.draining, scope["method"] == "HEAD")
        inner = dict(scope, method="GET") if reply.headless else scope
        self._metrics.in_flight += 1
        try:
            await self._answer(inner, headers, receive, reply)
        finally:
            self._metrics.in_flight -= 1
            self._record(inner, scope["method"], reply.status, reply.seconds)
            TRACE_ID.reset(trace)
            REQUEST_ID.reset(token)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, reply: Reply
    ) -> None:
        try:
            if self._gate is not None:
                await self._gate.admit(scope, headers)
            body = await read_body(receive, headers, self._max_body_bytes, self._body_timeout_s, self._timers)
            if body is None:
                return
            if self._repeats is not None and (kept := self._repeats.answer(scope, headers, body)) is not None:
                for message in kept:
                    await reply(message)
                return
            app = self._direct.get((scope["method"], scope["path"]), self._app)
            await watched(receive, body, reply, lambda replay: app(scope, replay, reply), self._timers)
        except asyncio.CancelledError:  # by the server, whose grace is over
            if reply.started:
                raise
            late = NotReady("the service ends before this is answered", headers={"Retry-After": "5"})
            await problem_response(late, scope["path"])(scope, receive, reply)
        except Exception as error:
            if not isinstance(error, REFUSALS):
                logger.exception("request failed")
            if reply.started:
                raise
            await problem_response(error, scope["path"])(scope, receive, reply)

    def _record(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = method if method in METHODS else "OTHER"
        self._requests(route, method, status).inc()
        self._durations(route).observe(seconds)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self._gathering.note()
        if route not in QUIET_ROUTES:
            self._access_log.add(method, route, status, seconds)


def _trace_id(traceparent: bytes | None) -> str | None:
    """Return the trace that a request is part of, as W3C Trace Context has it; None for what is none."""
    parsed = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return parsed[1].decode() if parsed else None
