"""What one process of a service is told, all do."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from service.processes.channel import Channel
from service.processes.siblings import Siblings

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
    near, far = socket.socketpair()
    ends = [await Channel.over(near, "other", first.answer), await Channel.over(far, "first", other.answer)]
    first.add(ends[0])
    asking = asyncio.create_task(first.change("change it", 1))
    await asyncio.sleep(0.02)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await first.change("change it", 2)
    assert sorted(done[:2]) == ["first 1", "other 1"]
    assert sorted(done[2:]) == ["first 2", "other 2"]
    for end in ends:
        end.close()
        await end.ended
