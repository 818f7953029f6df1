"""Who is let in: holders of a key, where keys are set, each no more often than the rate limit says."""

from __future__ import annotations

import math
import time

from starlette.types import Scope

from service.errors import NotReady, RateLimited, Unauthorized
from service.http.api_keys import ApiKeys, load_keys
from service.http.rate_limit import RateLimit
from service.processes.siblings import Siblings
from service.settings import Settings
from service.telemetry.metrics import Metrics

PUBLIC = frozenset(  # what machines ask, and what a browser opens without any header
    (
        *("/", "/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/openapi.json"),
        *("/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"),
    )
)


class Gate:
    """Looks at the head of a request alone, so that nothing is read of those that are turned away."""

    def __init__(
        self, keys: ApiKeys | None, limit: RateLimit | None, metrics: Metrics, siblings: Siblings
    ) -> None:
        self._keys, self._limit, self._metrics, self._siblings = keys, limit, metrics, siblings
        siblings.on("take", self._take)

    async def admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Let a request in. Raises Unauthorized and RateLimited."""
        if scope["path"] in PUBLIC:
            return
        holder = self._keys.holder(headers) if self._keys is not None else None
        if self._limit is not None:
            await self._count(holder or _address(scope))  # wrong keys too: guessing is slow
        if self._keys is not None and holder is None:
            given = b"authorization" in headers or b"x-api-key" in headers
            detail = "the key is wrong" if given else "a key is needed"
            challenge = 'Bearer realm="cogan"' + (', error="invalid_token"' if given else "")
            allowed = "allowed is a key of this service in 'Authorization: Bearer' or 'X-API-Key'"
            raise Unauthorized(f"{detail}; {allowed}", headers={"WWW-Authenticate": challenge})

    async def _take(self, name: str) -> float:
        return self._limit.wait(name, time.monotonic()) if self._limit is not None else 0.0

    async def _count(self, name: str) -> None:
        try:
            wait_s = await self._siblings.ask_first("take", name)
        except NotReady:  # the first process, which counts, has ended; what still comes is answered
            return
        if wait_s > 0:
            self._metrics.rejected.labels("rate_limit").inc()
            raise RateLimited(
                f"more requests than the rate limit allows; the next one may come in {wait_s:.2f} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def make_gate(settings: Settings, metrics: Metrics, siblings: Siblings) -> Gate | None:
    """Return the gate that the settings ask for; None where everybody may always. Raises SettingsError."""
    keys = load_keys(settings)
    limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    return Gate(keys, limit, metrics, siblings) if keys is not None or limit is not None else None
