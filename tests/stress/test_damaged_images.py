"""Damaged and greedy images at /translate: refused or translated, in time, and none of their memory is kept."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.damaged import damaged_files, greedy_files, metadata_bomb
from tests.running import Service
from tests.stress.forms import forms
from tests.stress.gauges import settled

DEADLINE_S = 5.0
LATE_S = 1.0  # for the way to the service and back, on a busy machine
CONNECTIONS = 8
GREEDY_EVERY = 40


def files(count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged files, and greedy ones between them."""
    greedy = itertools.cycle([*greedy_files().values(), metadata_bomb()])
    for i, file in enumerate(damaged_files(count, seed)):
        yield next(greedy) if i % GREEDY_EVERY == 0 else file


async def send(url: str, images: Iterable[bytes]) -> tuple[Counter[int], float]:
    """Send images over several connections; return how often each status came, and the longest time of an answer."""
    statuses, waiting, longest = Counter[int](), iter(images), 0.0

    async def send_some(client: httpx.AsyncClient) -> None:
        nonlocal longest
        for image in waiting:
            begun = time.perf_counter()
            answer = await client.post(f"{url}/translate", content=image, headers={"content-type": "image/png"})
            statuses[answer.status_code] += 1
            longest = max(longest, time.perf_counter() - begun)

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(send_some(client) for _ in range(CONNECTIONS)))
    return statuses, longest


@pytest.mark.parametrize(("first", "then", "growth"), forms((200, 400, 1.15), (4000, 5000, 1.1)))
def test_damaged_images_do_no_harm(
    tiny_model: Callable[..., Path], start: Callable[..., Service], first: int, then: int, growth: float
) -> None:
    """No 5xx, no answer after its deadline, and no more memory after many than after some."""
    tiny_model()
    tiny_model(("digit",), name="reader", kind="encoder", goes_with=("tiny",))
    service = start(deadline_s=DEADLINE_S, max_upload_bytes=2**24)
    resident = []
    for seed, count in enumerate((first, then)):
        statuses, longest = asyncio.run(send(service.url, files(count, seed)))
        assert statuses.keys() == {200, 413, 422}, statuses
        assert statuses.total() == count
        assert longest < DEADLINE_S + LATE_S
        resident.append(settled(service.url)["process_resident_memory_bytes"])
        service.lines.clear()
    print(resident)
    assert resident[1] <= growth * resident[0], resident
