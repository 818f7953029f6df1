"""Encoded answers, the least recently used dropped first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

ENTRY_OVERHEAD = 256  # bytes of the key and of the bookkeeping, roughly


class AnswerCache:
    """Bytes by key. An answer larger than the whole cache is not kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """Return what was put under the key, if it is still here."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer, at the cost of those unused for longest."""
        size = len(answer) + ENTRY_OVERHEAD
        if key in self._answers or size > self._max_bytes:
            return
        self._answers[key] = answer
        self._size += size
        while self._size > self._max_bytes:
            _, dropped = self._answers.popitem(last=False)
            self._size -= len(dropped) + ENTRY_OVERHEAD
