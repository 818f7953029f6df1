"""In a flood, what comes is read some times a second, all of it together.

Runs of a network leave a processor's caches nothing of the event loop: a request that comes alone costs twice
what it costs behind others. Network cards do the same with interrupts, which is called coalescing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

EVERY_S = 0.02
FOR_S = 0.1  # from the last refusal on
MOST_PARTS = 64  # of at most 256 KiB


class Gathering:
    """What has come to all connections and is not read yet. Belongs to an event loop."""

    def __init__(self) -> None:
        self._until = 0.0
        self._parts: deque[tuple[Callable[[bytes], None], bytes]] = deque()

    def begin(self) -> None:
        """Gather for a while from now on."""
        self._until = time.monotonic() + FOR_S

    def keep(self, read: Callable[[bytes], None], data: bytes) -> bool:
        """Keep what is to be read a little later; False where it is to be read now."""
        if not self._parts:
            if time.monotonic() >= self._until:
                return False
            asyncio.get_running_loop().call_later(EVERY_S, self.end)
        self._parts.append((read, data))
        if len(self._parts) == MOST_PARTS:
            self.end()
        return True

    def end(self) -> None:
        """Let all that is kept be read, in the order in which it came."""
        try:
            while self._parts:
                read, data = self._parts.popleft()
                read(data)
        finally:
            if self._parts:  # that one has failed is nothing to the others
                asyncio.get_running_loop().call_soon(self.end)
