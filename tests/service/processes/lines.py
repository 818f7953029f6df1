"""Processes of one service, joined within a test by the line that they have."""

from __future__ import annotations

import asyncio
import socket

from service.processes.channel import Channel
from service.processes.siblings import Siblings


async def join(first: Siblings, other: Siblings) -> list[Channel]:
    """Join a process to the first, and return both ends of their line."""
    near, far = socket.socketpair()
    ends = [await Channel.over(near, "other", first.answer), await Channel.over(far, "first", other.answer)]
    first.add(ends[0])
    return ends


async def part(ends: list[Channel]) -> None:
    """End a line."""
    for end in ends:
        end.close()
    await asyncio.gather(*(end.ended for end in ends))
