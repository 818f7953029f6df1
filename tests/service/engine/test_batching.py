"""Requests join in runs, and nobody notices but by the speed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from service.engine.batching import Batcher
from service.engine.entries import Job
from service.engine.onnx_model import Images, Latents, OnnxModel
from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.telemetry.metrics import Metrics
from tests.service.engine.conftest import SLOW, latents

pytestmark = pytest.mark.anyio
POISON = np.full((1, 8), 60, np.float32)  # a run of it fails


async def draw(batcher: Batcher, latents: Latents, seconds: float = 30.0) -> Images:
    """Ask a batcher for the images of latents, within so many seconds."""
    job = Job(batcher.model, len(latents), lambda start, stop: latents[start:stop], lambda _, images: images)
    images, _ = await batcher.draw(job, asyncio.get_running_loop().time() + seconds)
    return images


async def begin(request: Awaitable[Images]) -> asyncio.Task[Images]:
    """Let a request's run begin, and return what waits for it."""
    task = asyncio.ensure_future(request)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Read a metric."""
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


def same(images: Images, batcher: Batcher, size: int, seed: int) -> bool:
    """Compare images with those of their latents drawn one by one."""
    rows = [batcher.model.run(latent[None]) for latent in latents(size, seed)]
    return all(
        np.array_equal(images[name], np.concatenate([row[name] for row in rows]))
        for name in batcher.model.domains
    )


@pytest.mark.parametrize("max_batch", range(1, 9))
@pytest.mark.parametrize("runs", [1, 2])
async def test_bytes_do_not_depend_on_the_batch(
    make_batcher: Callable[..., Batcher], max_batch: int, runs: int
) -> None:
    """Requests of all sizes at once, split and joined in batches of any size, get what each gets alone."""
    batcher = make_batcher(max_batch=max_batch, runs=runs, max_queue=100)
    sizes = [1, 3, 8, 2, 13, 1, 5]
    drawn = await asyncio.gather(*(draw(batcher, latents(size, size)) for size in sizes))
    assert all(same(images, batcher, size, size) for images, size in zip(drawn, sizes, strict=True))


async def test_what_waits_is_joined(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """While one run is busy, others wait, and are then drawn in one; as are those that come together."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(draw(batcher, latents(1)))
    await asyncio.gather(first, *(draw(batcher, latents(1)) for _ in range(8)))
    assert value(metrics, "cogan_batches_total", model="tiny") == 2
    assert value(metrics, "cogan_samples_total", model="tiny") == 9


async def test_queue_is_bounded_in_latents(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """What does not fit is refused at once, and told when to come again; what fits is drawn."""
    batcher = make_batcher(turns=SLOW, max_queue=10)
    first = await begin(draw(batcher, latents(1)))
    waiting = asyncio.create_task(draw(batcher, latents(10)))
    await asyncio.sleep(0)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 10
    with pytest.raises(QueueFull) as caught:
        await draw(batcher, latents(1))
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert value(metrics, "cogan_rejected_total", reason="queue_full") == 1
    await asyncio.gather(first, waiting)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0


async def test_expired_requests_are_not_drawn(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """A request that waits past its deadline fails at the deadline, and its latents cost nothing."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(draw(batcher, latents(1)))
    with pytest.raises(DeadlineExceeded):
        await draw(batcher, latents(5), seconds=0.01)
    assert not first.done()
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0
    await first
    assert value(metrics, "cogan_samples_total", model="tiny") == 1
    assert value(metrics, "cogan_rejected_total", reason="deadline") == 1


async def test_cancelled_requests_are_not_drawn(
    make_batcher: Callable[..., Batcher], metrics: Metrics
) -> None:
    """Whoever leaves makes room at once, and those behind are drawn."""
    batcher = make_batcher(turns=SLOW, max_queue=10)
    first = await begin(draw(batcher, latents(1)))
    leaving = [asyncio.create_task(draw(batcher, latents(2))) for _ in range(5)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    staying = asyncio.create_task(draw(batcher, latents(10, 1)))
    await first
    assert same(await staying, batcher, 10, 1)
    assert value(metrics, "cogan_samples_total", model="tiny") == 11
    assert value(metrics, "cogan_rejected_total", reason="cancelled") == 5


async def test_a_cancelled_request_may_be_in_a_run(make_batcher: Callable[..., Batcher]) -> None:
    """Leaving while being drawn hurts nobody in the same run, nor the next."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(draw(batcher, latents(1)))
    leaving = asyncio.create_task(draw(batcher, latents(1)))
    staying = asyncio.create_task(draw(batcher, latents(3, 1)))
    await first
    leaving.cancel()
    assert same(await staying, batcher, 3, 1)
    assert same(await draw(batcher, latents(2, 2)), batcher, 2, 2)


async def test_a_failing_run_fails_only_who_caused_it(make_batcher: Callable[..., Batcher]) -> None:
    """In a run that fails, the others are drawn again without the one at fault, and the batcher goes on."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(draw(batcher, latents(1)))
    poisoned = asyncio.create_task(draw(batcher, POISON))
    innocent = asyncio.create_task(draw(batcher, latents(3, 1)))
    with pytest.raises(RunFailed):
        await poisoned
    assert same(await innocent, batcher, 3, 1)
    await first
    await asyncio.sleep(0)  # an answer is counted when it is on its way
    counted = batcher.model.statistics
    assert (counted.success.count, counted.fail.count) == (2, 1)
    assert same(await draw(batcher, latents(2, 2)), batcher, 2, 2)


async def test_a_request_that_fails_in_part_fails_whole(
    make_batcher: Callable[..., Batcher], metrics: Metrics
) -> None:
    """Of a request over several runs, one failing run fails it all, and the rest is not drawn."""
    batcher = make_batcher(max_batch=2)
    with pytest.raises(RunFailed):
        await draw(batcher, np.concatenate([POISON, latents(20)]))
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0


async def test_an_answer_that_cannot_be_encoded_fails_alone(make_batcher: Callable[..., Batcher]) -> None:
    """What encoding raises reaches who asked; others in the same run get their images."""
    batcher = make_batcher(turns=SLOW)

    def refuse(_: Latents, __: Images) -> None:
        raise ValueError("no room")

    first = await begin(draw(batcher, latents(1)))
    job = Job(batcher.model, 1, lambda start, stop: latents(1)[start:stop], refuse)
    failing = asyncio.create_task(batcher.draw(job, asyncio.get_running_loop().time() + 30))
    innocent = asyncio.create_task(draw(batcher, latents(3, 1)))
    with pytest.raises(ValueError, match="no room"):
        await failing
    assert same(await innocent, batcher, 3, 1)
    await first


async def test_a_run_has_entries_of_one_model_alone(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path], metrics: Metrics
) -> None:
    """When the model is exchanged, what waits is drawn by the old one, what comes then by the new one."""
    batcher = make_batcher(turns=SLOW)
    old, new = batcher.model, OnnxModel(tiny_model(("b", "a", "c"), version="2"))
    first = await begin(draw(batcher, latents(1)))
    before = asyncio.create_task(draw(batcher, latents(3, 3)))
    await asyncio.sleep(0)
    batcher.model = new
    after = asyncio.create_task(draw(batcher, latents(2, 2)))
    assert same(await after, batcher, 2, 2)
    batcher.model = old
    assert same(await before, batcher, 3, 3)
    await first
    assert value(metrics, "cogan_batches_total", model="tiny") == 3


async def test_a_model_draws_no_more_at_once_than_it_may(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path]
) -> None:
    """What waits for a model is drawn in runs of its own size, although another one has its place."""
    batcher = make_batcher(max_batch=2, turns=SLOW)
    old, first = batcher.model, await begin(draw(batcher, latents(1)))
    before = asyncio.create_task(draw(batcher, latents(5, 3)))
    await asyncio.sleep(0)
    batcher.model = OnnxModel(tiny_model(version="2"), max_batch=64)
    await asyncio.gather(first, before)
    assert max(old.statistics.runs) == 2
