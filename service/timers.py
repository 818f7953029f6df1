"""Timers of many requests, nearly all of which end before: one of the event loop's for all of them.

To make and cancel one of uvloop's for each costs a request several times what is noted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """A call that is due at a moment of the event loop's time, unless it is cancelled before."""

    __slots__ = ("_timers", "call", "due")

    def __init__(self, timers: Timers, due: float, call: Callable[[], None]) -> None:
        self._timers, self.due, self.call = timers, due, call

    def cancel(self) -> None:
        """Forget the call; nothing happens where it was made already."""
        self._timers.forget(self)


class Timers:
    """Belongs to the event loop that first asks for a timer."""

    def __init__(self) -> None:
        self._waiting: set[Timer] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")

    def call_at(self, due: float, call: Callable[[], None]) -> Timer:
        """Call at a moment of the event loop's time, or soon after."""
        timer = Timer(self, due, call)
        self._waiting.add(timer)
        if due < self._alarm_at:
            self._set_alarm(due)
        return timer

    def timeout(self, seconds: float) -> Timeout:
        """Return what raises TimeoutError in a block that takes longer, as `asyncio.timeout` does."""
        return Timeout(self, seconds)

    def forget(self, timer: Timer) -> None:
        """Take a timer back."""
        self._waiting.discard(timer)

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._ring)
        self._alarm_at = due

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        self._alarm, self._alarm_at = None, float("inf")
        for timer in sorted((timer for timer in self._waiting if timer.due <= now), key=lambda one: one.due):
            if timer in self._waiting:  # no earlier call has cancelled it
                self.forget(timer)
                timer.call()
        if self._waiting:
            self._set_alarm(min(timer.due for timer in self._waiting))


class Timeout:
    """Cancels the task that is in its block when the time is over, and makes a TimeoutError of that."""

    __slots__ = ("_late", "_seconds", "_task", "_timer", "_timers")

    def __init__(self, timers: Timers, seconds: float) -> None:
        self._timers, self._seconds, self._late = timers, seconds, False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        due = asyncio.get_running_loop().time() + self._seconds
        self._timer = self._timers.call_at(due, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._late and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._late = True
        self._task.cancel()
