"""How a training that is told to stop loses nothing: it ends after the step that it is in."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def told_to_stop(processes: int) -> Iterator[Callable[[], bool]]:
    """Give what says whether a signal has come: Ctrl-C, or SIGTERM. A second one ends at once.

    Several processes end at once, for they may be in different steps.
    """
    told: list[int] = []
    if processes > 1:
        yield lambda: False
        return

    def note(number: int, _: FrameType | None) -> None:
        told.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(told)
    finally:
        restore()
