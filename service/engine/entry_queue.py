"""The queue of one model and the batches taken from it, for the event loop and worker threads alike."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any

from service.engine.entries import Entry, Share


class EntryQueue:
    """Entries in order, bounded in latents. One lock guards them, and what of them is given to runs."""

    def __init__(self, most: int, runs: int) -> None:
        """Hold at most so many latents, and let at most `runs` batches be taken at the same time."""
        self.depth = 0  # latents that wait
        self._most, self._runs = most, runs
        self._lock = threading.Lock()
        self._entries: deque[Entry[Any]] = deque()
        self._given: dict[int, float] = {}  # since when batches are being drawn, by id; inf where not yet

    @property
    def longest_run(self) -> float:
        """The seconds since when the oldest batch is being drawn; 0 where none is."""
        with self._lock:
            return max(0.0, time.perf_counter() - min(self._given.values(), default=math.inf))

    def put(self, entry: Entry[Any]) -> bool:
        """Add an entry at the end; False where there is no room for all of it."""
        with self._lock:
            if self.depth + entry.job.size > self._most:
                return False
            self._entries.append(entry)
            self.depth += entry.job.size
            return True

    def drop(self, entry: Entry[Any]) -> None:
        """Let the rest of an entry wait no longer."""
        with self._lock:
            self._drop(entry)

    def take(self) -> list[Share]:
        """Take a batch where it may run and something waits; else nothing.

        Runs that are free share what waits evenly. A batch has entries of one model alone, and no more
        latents than that draws at once.
        """
        with self._lock:
            if not self.depth or len(self._given) == self._runs:
                return []
            batch = self._fill(math.ceil(self.depth / (self._runs - len(self._given))))
            if batch:
                self._given[id(batch)] = math.inf
            return batch

    def begin(self, batch: list[Share]) -> bool:
        """Begin to draw a batch, without those who no longer wait; False where nobody does.

        It may have stood behind batches of other models until now.
        """
        with self._lock:
            self._given[id(batch)] = now = time.perf_counter()
            batch[:] = [share for share in batch if not share.entry.done.done()]
            for entry, start, _ in batch:
                if start == 0:
                    entry.waited = now - entry.queued_at
            return bool(batch)

    def end(self, batch: list[Share]) -> None:
        """Free the place of a batch that is drawn."""
        with self._lock:
            del self._given[id(batch)]

    def alone(self, batch: list[Share]) -> bool:
        """Say whether a batch is one whole entry, and nothing else waits or runs."""
        with self._lock:
            whole = len(batch) == 1 and batch[0].stop - batch[0].start == batch[0].entry.job.size
            return whole and len(self._given) == 1 and not self.depth

    def _fill(self, room: int) -> list[Share]:
        """Take from the head; who no longer waits is dropped."""
        batch: list[Share] = []
        while room and self._entries:
            entry = self._entries[0]
            if entry.done.done():
                self._drop(entry)
                continue
            if not batch:
                room = min(room, entry.job.model.max_batch)
            elif entry.job.model is not batch[0].entry.job.model:
                break
            start, stop = entry.taken, entry.taken + min(room, entry.waiting)
            entry.taken = stop
            self.depth -= stop - start
            room -= stop - start
            if not entry.waiting:
                self._entries.popleft()
            batch.append(Share(entry, start, stop))
        return batch

    def _drop(self, entry: Entry[Any]) -> None:
        if entry.waiting:
            self._entries.remove(entry)
            self.depth -= entry.waiting
            entry.taken = entry.job.size
