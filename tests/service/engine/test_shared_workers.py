"""Batchers of several models share their workers: what stands behind another's run is not yet drawn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.engine.batching import Batcher
from service.engine.entries import Job
from service.errors import DeadlineExceeded
from service.telemetry.metrics import Metrics
from tests.service.engine.conftest import SLOW, latents

pytestmark = pytest.mark.anyio


async def ask(batcher: Batcher, seconds: float = 30.0) -> dict[str, float]:
    """Ask for one latent's images, and return what each part of the work took."""
    job = Job(batcher.model, 1, lambda start, stop: latents(1)[start:stop], lambda _, images: images)
    return (await batcher.draw(job, asyncio.get_running_loop().time() + seconds))[1]


async def test_a_batch_waits_until_it_is_drawn(
    make_batcher: Callable[..., Batcher], metrics: Metrics
) -> None:
    """Who leaves meanwhile is not drawn, the wait is told as one, and no run is taken to hang."""
    workers = ThreadPoolExecutor(1)
    slow = make_batcher(turns=5 * SLOW, workers=workers, name="slow")
    behind = make_batcher(workers=workers)
    first = asyncio.create_task(ask(slow))
    await asyncio.sleep(0.05)
    patient = asyncio.create_task(ask(behind))
    begun = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        await ask(behind, seconds=0.05)
    assert (slow.longest_run > 0.0, behind.longest_run, behind.busy) == (True, 0.0, True)
    seconds = await patient
    assert 0.9 * (time.perf_counter() - begun) < seconds["queue"]
    await first
    assert metrics.registry.get_sample_value("cogan_samples_total", {"model": "tiny"}) == 1
    assert (slow.busy, behind.busy) == (False, False)
