"""What one process of a service is told, all do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import Stuck
from service.processes.siblings import Siblings
from tests.service.processes.lines import join, part

pytestmark = pytest.mark.anyio


async def test_a_change_is_whole_though_who_asked_has_left() -> None:
    """The first process goes on with what the others have been told already, and nothing comes between."""
    done: list[str] = []
    first, other = Siblings(), Siblings()
    for siblings, name in ((first, "first"), (other, "other")):

        async def change(value: Any, name: str = name) -> None:
            await asyncio.sleep(0.05)
            done.append(f"{name} {value}")

        siblings.on("change it", change)
    ends = await join(first, other)
    asking = asyncio.create_task(first.change("change it", 1))
    await asyncio.sleep(0.02)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await first.change("change it", 2)
    assert sorted(done[:2]) == ["first 1", "other 1"]
    assert sorted(done[2:]) == ["first 2", "other 2"]
    await part(ends)


async def test_a_process_that_is_late_may_be_passed_over() -> None:
    """A busy one is no hung one: only a long silence is told as such, and an answer ends it."""
    first, other, waiting = Siblings(), Siblings(), asyncio.Event()
    first.on("count", lambda _: asyncio.sleep(0, 1))

    async def count(_: Any) -> int:
        await waiting.wait()
        return 2

    other.on("count", count)
    ends = await join(first, other)
    assert await first.gather("count", patience_s=0.05, silence_s=30.0) == [1]
    with pytest.raises(Stuck, match=r"other has not answered for \d+ s"):
        await first.gather("count", patience_s=0.05)
    waiting.set()
    assert await first.gather("count", patience_s=30.0) == [1, 2]
    await part(ends)
