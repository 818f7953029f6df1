"""Access control: API keys, rate limits, and which pages of other origins may send requests."""

from __future__ import annotations

import hmac
import math
import re
import time
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from starlette.types import Scope

from service.errors import Forbidden, RateLimited, SettingsError, Unauthorized
from service.settings import Settings
from service.telemetry.metrics import Metrics

POLLED = frozenset(("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"))  # not logged, not traced
PUBLIC = POLLED | {  # and what a browser opens without any header
    *("/", "/openapi.json", "/docs"),
    *("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"),
}
VALID_KEY = re.compile(r"[!-+\--~]{16,256}")  # visible ASCII without the comma that separates keys
BINARY_HEADER = "Inference-Header-Content-Length"  # of the Open Inference Protocol's binary data
ALLOWED = "Authorization X-API-Key X-Request-Id Traceparent X-Request-Timeout If-None-Match"
EXPOSED = "X-Request-Id ETag Retry-After Server-Timing Content-Location"
FOUND = "X-Image-Domain X-Latent X-Likeness X-Reconstruction-Error"  # of /translate
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": [*ALLOWED.split(), BINARY_HEADER],
    "expose_headers": [*EXPOSED.split(), *FOUND.split(), BINARY_HEADER],
    "max_age": 600,
}
MAX_BUCKETS = 10_000  # from which on full ones are dropped


def _load_keys(settings: Settings) -> list[bytes]:
    """Return the SHA-256 of each key of the settings and of their file; none if neither is set.

    Raises SettingsError for an unreadable file, no key, or a weak one; never with the key.
    """
    places = dict[str, str]()  # of each key
    if settings.api_keys is not None:
        given = enumerate(settings.api_keys.get_secret_value().split(","), 1)
        places = {key.strip(): f"COGAN_API_KEYS, key {number}" for number, key in given}
    if (file := settings.api_keys_file) is not None:
        try:
            lines = file.read_text("utf-8-sig").splitlines()  # a byte order mark is no part of a key
        except (OSError, UnicodeDecodeError) as error:
            hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
            raise SettingsError(f"COGAN_API_KEYS_FILE = '{file}' cannot be read: {error}{hint}") from error
        for number, line in enumerate(map(str.strip, lines), 1):
            if line and not line.startswith("#"):
                places[line] = f"COGAN_API_KEYS_FILE = '{file}', line {number}"
        if not places:
            raise SettingsError(f"COGAN_API_KEYS_FILE = '{file}' holds no key")
    for key, place in places.items():
        if not VALID_KEY.fullmatch(key):
            wanted = (
                "allowed are 16 to 256 visible ASCII characters except the comma, and a comment on a line of its own"
            )
            raise SettingsError(f"{place}: not a key; {wanted}")
    return [sha256(key.encode()).digest() for key in places]


class RateLimit:
    """Token buckets by client: `burst` requests at once, `rate` per second in the long run.

    A bucket is stored as the time at which it is full again.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval_s, self._burst = 1 / rate, burst
        self._full_at: dict[str, float] = {}
        self._sweep_at = MAX_BUCKETS

    def wait(self, client: str, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        full_at = max(now, self._full_at.get(client, now)) + self._interval_s
        late = full_at - now - self._burst * self._interval_s
        if late > 1e-9:
            return late
        self._full_at[client] = full_at
        if len(self._full_at) > self._sweep_at:
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
            self._sweep_at = max(MAX_BUCKETS, 2 * len(self._full_at))
        return 0.0


class AccessControl:
    """Decides by the head of a request, so that nothing is read of rejected ones."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Read the keys; without one, everyone may send requests. Raises SettingsError."""
        self._keys, self._metrics = _load_keys(settings), metrics
        self._limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None

    @property
    def restricts(self) -> bool:
        """True if keys or a rate limit are set, so that a request may be rejected."""
        return bool(self._keys) or self._limit is not None

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise Unauthorized or RateLimited unless the request may pass."""
        if scope["path"] in PUBLIC or scope["path"].startswith("/studio/"):
            return
        holder = self._holder(headers) if self._keys else None
        if self._limit is not None:  # wrong keys count for their address: guessing is slow
            wait_s = self._limit.wait(holder or _client(scope), time.monotonic())
            if wait_s > 0:
                self._metrics.rejected.labels("rate_limit").inc()
                detail = f"over the rate limit; retry in {wait_s:.2f} s"
                raise RateLimited(detail, headers={"Retry-After": str(math.ceil(wait_s))})
        if self._keys and holder is None:
            given = b"authorization" in headers or b"x-api-key" in headers
            detail = "the API key is wrong" if given else "an API key is required"
            challenge = 'Bearer realm="cogan"' + (', error="invalid_token"' if given else "")
            allowed = "send one in 'Authorization: Bearer' or 'X-API-Key'"
            raise Unauthorized(f"{detail}; {allowed}", headers={"WWW-Authenticate": challenge})

    def _holder(self, headers: dict[bytes, bytes]) -> str | None:
        """Return an identifier of a request's valid key, or None, in a time that does not depend on the key."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        bearer = token.strip() if scheme.lower() == b"bearer" else b""  # may be a proxy's own, beside our key
        digests = [sha256(key).digest() for key in (bearer, headers.get(b"x-api-key", b""))]
        found = [one for one in digests for valid in self._keys if hmac.compare_digest(one, valid)]  # tries all of them
        return found[0].hex() if found else None


def _client(scope: Scope) -> str:
    """Return the client's address; of IPv6 its /64, which one client has to itself."""
    given = scope.get("client")
    host = given[0].partition("%")[0] if given else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return host


def refuse_cross_site(scope: Scope) -> None:
    """Raise Forbidden for a request that a page of another origin has a browser send.

    Browsers tell by Sec-Fetch-Site, older ones by Origin; other clients send neither.
    """
    headers = dict(reversed(scope["headers"]))
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    same = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    if not (same if site is None else site in (b"same-origin", b"none")):
        raise Forbidden("pages of other origins may not load or unload models")
