"""Batchers of several models share their workers: what stands behind another's run is not yet drawn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.engine.batching import Batcher
from service.engine.entries import Job
from service.engine.onnx_model import Latents
from service.errors import DeadlineExceeded
from service.telemetry.metrics import Metrics
from tests.running import START
from tests.service.engine.conftest import latents

pytestmark = pytest.mark.anyio


async def ask(
    batcher: Batcher, seconds: float = 30.0, gate: threading.Event | None = None
) -> dict[str, float]:
    """Ask for one latent's images, drawn once a gate is open, and return what each part of the work took."""

    def draw(start: int, stop: int) -> Latents:
        assert gate is None or gate.wait(START)
        return latents(1)[start:stop]

    job = Job(batcher.model, 1, draw, lambda _, images: images)
    return (await batcher.draw(job, asyncio.get_running_loop().time() + seconds))[1]


async def test_a_batch_waits_until_it_is_drawn(
    make_batcher: Callable[..., Batcher], metrics: Metrics
) -> None:
    """Who leaves meanwhile is not drawn, the wait is told as one, and no run is taken to hang."""
    workers, gate = ThreadPoolExecutor(1), threading.Event()
    ahead = make_batcher(workers=workers, name="ahead")
    behind = make_batcher(workers=workers)
    first = asyncio.create_task(ask(ahead, gate=gate))
    while not ahead.longest_run:
        await asyncio.sleep(0.01)
    patient = asyncio.create_task(ask(behind))
    await asyncio.sleep(0.05)
    begun = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        await ask(behind, seconds=0.05)
    assert (ahead.longest_run > 0.0, behind.longest_run) == (True, 0.0)
    waited = time.perf_counter() - begun
    gate.set()
    assert (await patient)["queue"] > waited
    await first
    assert metrics.registry.get_sample_value("cogan_samples_total", {"model": "tiny"}) == 1
