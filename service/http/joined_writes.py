"""A transport that saves a system call an answer: its head and its body leave together."""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites:
    """A transport that sends an answer's head together with what follows in the same turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._kept = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, part: bytes) -> None:
        """Keep a first part until the next one, or until the turn ends."""
        if self._kept:
            part, self._kept = self._kept + part, b""
            self._transport.write(part)
        else:
            self._kept = part
            self._loop.call_soon(self._send)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Count the bytes that are not sent yet."""
        return self._transport.get_write_buffer_size() + len(self._kept)

    def _send(self) -> None:
        if self._kept:
            self.write(b"")
