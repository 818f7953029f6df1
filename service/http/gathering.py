"""While many are refused, what comes is read some times a second, all of it together.

Runs of a network leave a processor's caches nothing of the event loop: a request that comes alone costs twice
what it costs behind others. Network cards do the same with interrupts, which is called coalescing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Protocol

logger = logging.getLogger("cogan.gathering")
EVERY_S = 0.02
MANY, IN_S = 10, 0.2  # refusals, and the time in which they are a flood
FOR_S = 0.1  # from the last of them on
MOST_KEPT = 64  # parts of at most 256 KiB


class Reader(Protocol):
    """A connection."""

    transport: asyncio.Transport

    def read(self, data: bytes) -> None:
        """Read what has come."""


class Gathering:
    """What has come to connections and is not read yet, a part of each. Belongs to an event loop."""

    def __init__(self) -> None:
        self._until = 0.0
        self._refusals = deque([0.0] * MANY, maxlen=MANY)  # when the last ones were
        self._kept: dict[Reader, bytes] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Note a refusal; gather for a while where that was one of many."""
        now = time.monotonic()
        self._refusals.append(now)
        if now - self._refusals[0] < IN_S:
            self._until = now + FOR_S

    def holds(self, reader: Reader) -> bool:
        """Say whether something is kept for a reader."""
        return reader in self._kept

    def keep(self, reader: Reader, data: bytes) -> bool:
        """Keep what is to be read a little later; False where it is to be read now."""
        if reader in self._kept or len(self._kept) == MOST_KEPT:
            self.end()
        if not self._kept:
            if time.monotonic() >= self._until:
                return False
            self._alarm = asyncio.get_running_loop().call_later(EVERY_S, self.end)
        self._kept[reader] = data
        return True

    def end(self) -> None:
        """Let all that is kept be read, in the order in which it came."""
        if self._alarm is not None:
            self._alarm.cancel()
        kept, self._kept, self._alarm = self._kept, {}, None
        for reader, data in kept.items():
            try:
                reader.read(data)
            except Exception:
                logger.exception("what came could not be read")
                reader.transport.abort()
