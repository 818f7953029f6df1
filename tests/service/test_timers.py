"""Many timers, one of the event loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.timers import Timers

pytestmark = pytest.mark.anyio


@pytest.fixture
def timers() -> Timers:
    """Return timers."""
    return Timers()


async def test_timers_ring_in_order_unless_cancelled(timers: Timers) -> None:
    """Each is called once, when it is due, whatever the order that they were asked for in."""
    called: list[str] = []
    now = asyncio.get_running_loop().time()

    def note(name: str) -> Callable[[], None]:
        return lambda: called.append(name)

    timers.call_at(now + 0.06, note("second"))
    cancelled = timers.call_at(now + 0.04, note("cancelled"))
    timers.call_at(now + 0.02, note("first"))
    cancelled.cancel()
    await asyncio.sleep(0.04)
    assert called == ["first"]
    await asyncio.sleep(0.06)
    assert called == ["first", "second"]


async def test_a_call_may_cancel_another_that_is_due(timers: Timers) -> None:
    """What is cancelled by a call of the same moment is not called."""
    called: list[int] = []
    now = asyncio.get_running_loop().time()

    def cancel_both() -> None:
        called.append(1)
        for timer in both:
            timer.cancel()

    both = [timers.call_at(now, cancel_both) for _ in range(2)]
    await asyncio.sleep(0.02)
    assert called == [1]


async def test_a_block_that_takes_too_long_is_left(timers: Timers) -> None:
    """It ends with a TimeoutError, and the task goes on; a quick one ends as it ends."""
    with timers.timeout(1):
        pass
    with pytest.raises(TimeoutError), timers.timeout(0.01):
        await asyncio.sleep(1)
    with pytest.raises(KeyError), timers.timeout(1):
        raise KeyError
    await asyncio.sleep(0)


async def test_who_is_cancelled_from_outside_is_not_late(timers: Timers) -> None:
    """A cancellation that is not the timer's own goes through."""

    async def wait() -> None:
        with timers.timeout(1):
            await asyncio.sleep(1)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
