"""What every answer says of itself, whichever route made it."""

from __future__ import annotations

import time

from starlette.types import Message, Send

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
CLIENT_LEFT = 499  # as nginx logs it


class Reply:
    """Sends an answer with the headers that every answer has, and remembers how far it came."""

    def __init__(self, send: Send, request_id: bytes, closing: bool, headless: bool) -> None:
        self._send, self._closing = send, closing
        self._request_id = request_id
        self.headless = headless  # HEAD: the headers of GET alone
        self.status = CLIENT_LEFT
        self.started = self.ended = False
        self.begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return time.perf_counter() - self.begun

    async def __call__(self, message: Message) -> None:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            extra = [(b"x-request-id", self._request_id), *SECURITY_HEADERS]
            if self.status >= 400:
                extra.append((b"server-timing", b"total;dur=%.3f" % (self.seconds * 1e3)))
            if self._closing:
                extra.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
            if self.headless:
                message = {**message, "body": b""}
        await self._send(message)
