"""Requests share runs of a model, and are only faster for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from service.engine.batcher import ENCODE_SLICE_S, INLINE_S, Batcher, Encoding, Job
from service.engine.onnx_model import Arrays, OnnxModel
from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.metadata import CLASSES, LATENT, PREVIOUS
from service.telemetry.metrics import Metrics
from tests.running import START
from tests.service.engine.conftest import SLOW, latents, make_job, outputs_alone, value

pytestmark = pytest.mark.anyio
POISON = np.full((1, 8), 60, np.float32)  # a run of it fails
LONG = 2 * ENCODE_SLICE_S  # what an encoder thread is estimated to take


async def submit(batcher: Batcher, job: Job[Any], seconds: float = 30.0) -> Any:
    """Return the result of a job, within so many seconds."""
    return (await batcher.submit(job, asyncio.get_running_loop().time() + seconds))[0]


async def generate(batcher: Batcher, rows: NDArray[np.float32], seconds: float = 30.0) -> Arrays:
    """Return the images of latents, within so many seconds."""
    images: Arrays = await submit(batcher, make_job(batcher.model, rows), seconds)
    return images


async def thread_of(batcher: Batcher, size: int = 1, encode_s: float = 0.0) -> threading.Thread:
    """Return the thread that encoded a request."""

    def encode(_: Arrays, __: Arrays) -> Encoding[threading.Thread]:
        yield
        return threading.current_thread()

    thread = await submit(batcher, make_job(batcher.model, latents(size), encode, encode_s))
    assert isinstance(thread, threading.Thread)
    return thread


async def begin(request: Awaitable[Arrays]) -> asyncio.Task[Arrays]:
    """Let a request's run begin, and return what waits for it."""
    task = asyncio.ensure_future(request)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


def same(images: Arrays, model: OnnxModel, size: int, seed: int) -> bool:
    """Compare images with those of their latents in a run of their own."""
    expected = model.run({LATENT: latents(size, seed)})
    return all(np.array_equal(images[name], expected[name]) for name in model.domains)


@pytest.mark.parametrize("max_batch", range(1, 9))
@pytest.mark.parametrize("runs", [1, 2])
async def test_bytes_do_not_depend_on_the_batch(
    make_batcher: Callable[..., Batcher], max_batch: int, runs: int
) -> None:
    """Requests of all sizes at once, split and joined in batches of any size, get what each gets alone."""
    batcher = make_batcher(max_batch=max_batch, runs=runs, max_queue=100)
    sizes = [1, 3, 8, 2, 13, 1, 5]
    found = await asyncio.gather(*(generate(batcher, latents(size, size)) for size in sizes))
    assert all(same(images, batcher.model, size, size) for images, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
async def test_every_kind_of_model_is_batched(
    make_batcher: Callable[..., Batcher], metrics: Metrics, kind: str
) -> None:
    """Images of several requests share a run of a classifier or an encoder, and each gets its own outputs."""
    batcher = make_batcher(kind=kind, domains=("digit",), turns=SLOW)
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 1)).astype(np.uint8)
    inputs: dict[str, Any] = {"digit": images}
    if kind == "encoder":
        inputs[PREVIOUS] = latents(9)
    parts = [{name: array[start:stop] for name, array in inputs.items()} for start, stop in ((0, 1), (1, 4), (4, 9))]
    first = await begin(submit(batcher, make_job(batcher.model, parts[0])))
    rest = [submit(batcher, make_job(batcher.model, part)) for part in parts[1:]]
    found = [await first, *await asyncio.gather(*rest)]
    output = CLASSES if kind == "classifier" else LATENT
    joined = np.concatenate([outputs[output] for outputs in found])
    assert np.allclose(joined, batcher.model.run(inputs)[output], atol=1e-5)
    assert value(metrics, "cogan_batches_total", model="tiny") == 2


async def test_waiting_requests_share_a_run(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """What arrives during a run is computed in one run after it."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(generate(batcher, latents(1)))
    await asyncio.gather(first, *(generate(batcher, latents(1)) for _ in range(8)))
    assert value(metrics, "cogan_batches_total", model="tiny") == 2
    assert value(metrics, "cogan_samples_total", model="tiny") == 9


async def test_queue_is_bounded_in_rows(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """What does not fit is refused at once, with the time to retry; what fits is computed."""
    batcher = make_batcher(turns=SLOW, max_queue=10)
    first = await begin(generate(batcher, latents(1)))
    waiting = asyncio.create_task(generate(batcher, latents(10)))
    await asyncio.sleep(0)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 10
    with pytest.raises(QueueFull, match="holds 10 images") as caught:
        await generate(batcher, latents(1))
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert value(metrics, "cogan_rejected_total", reason="queue_full") == 1
    await asyncio.gather(first, waiting)
    await asyncio.sleep(0)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0


async def test_queue_is_bounded_in_pixels(
    make_batcher: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images count until their request is done, large ones for more; one request is accepted at any size."""
    batcher = make_batcher(turns=SLOW, max_queue=100)
    monkeypatch.setattr("service.engine.batcher.MAX_QUEUE_PIXELS", 10 * batcher.model.pixels)
    first = await begin(generate(batcher, latents(6)))
    fitting = asyncio.create_task(generate(batcher, latents(4)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match=f"needs 1 of {batcher.model.pixels} pixels.* {10 * batcher.model.pixels} pix"):
        await generate(batcher, latents(1))
    await first
    await asyncio.gather(fitting, generate(batcher, latents(6)))
    assert same(await generate(batcher, latents(20, 1)), batcher.model, 20, 1)


async def test_expired_requests_are_not_computed(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """A request that waits past its deadline fails at the deadline, and its latents cost nothing."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(generate(batcher, latents(1)))
    with pytest.raises(DeadlineExceeded):
        await generate(batcher, latents(5), seconds=0.01)
    assert not first.done()
    await asyncio.sleep(0)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0
    await first
    await asyncio.sleep(0)
    assert value(metrics, "cogan_samples_total", model="tiny") == 1
    assert value(metrics, "cogan_rejected_total", reason="deadline") == 1


async def test_cancelled_requests_are_not_computed(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """Cancelled requests make room at once, and those behind them are computed."""
    batcher = make_batcher(turns=SLOW, max_queue=10)
    first = await begin(generate(batcher, latents(1)))
    leaving = [asyncio.create_task(generate(batcher, latents(2))) for _ in range(5)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    staying = asyncio.create_task(generate(batcher, latents(10, 1)))
    await first
    assert same(await staying, batcher.model, 10, 1)
    assert value(metrics, "cogan_samples_total", model="tiny") == 11
    assert value(metrics, "cogan_rejected_total", reason="cancelled") == 5


async def test_a_cancelled_request_may_be_in_a_run(make_batcher: Callable[..., Batcher]) -> None:
    """A request that is cancelled during its run affects no other in the same run, nor the next."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(generate(batcher, latents(1)))
    leaving = asyncio.create_task(generate(batcher, latents(1)))
    staying = asyncio.create_task(generate(batcher, latents(3, 1)))
    await first
    leaving.cancel()
    assert same(await staying, batcher.model, 3, 1)
    assert same(await generate(batcher, latents(2, 2)), batcher.model, 2, 2)


async def test_a_failing_run_fails_only_the_request_that_caused_it(
    make_batcher: Callable[..., Batcher], metrics: Metrics
) -> None:
    """If a run fails, the other requests in it are run again without the one at fault, and the batcher goes on."""
    batcher = make_batcher(turns=SLOW)
    first = await begin(generate(batcher, latents(1)))
    poisoned = asyncio.create_task(generate(batcher, POISON))
    innocent = asyncio.create_task(generate(batcher, latents(3, 1)))
    with pytest.raises(RunFailed):
        await poisoned
    assert same(await innocent, batcher.model, 3, 1)
    await first
    await asyncio.sleep(0)  # a response is counted while it is being sent
    counted = [
        value(metrics, "cogan_model_request_seconds_count", model="tiny", version="1", outcome=outcome)
        for outcome in ("success", "fail")
    ]
    assert counted == [2, 1]
    assert same(await generate(batcher, latents(2, 2)), batcher.model, 2, 2)


async def test_a_request_that_fails_in_part_fails_whole(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """If one of a request's runs fails, the request fails, and its other rows leave the queue."""
    batcher = make_batcher(max_batch=2)
    with pytest.raises(RunFailed):
        await generate(batcher, np.concatenate([POISON, latents(20)]))
    await asyncio.sleep(0)
    assert value(metrics, "cogan_queue_depth", model="tiny") == 0


@pytest.mark.parametrize("encode_s", [0.0, LONG])
async def test_a_response_that_cannot_be_encoded_fails_alone(
    make_batcher: Callable[..., Batcher], encode_s: float
) -> None:
    """What encoding raises reaches its own request; others in the same run get their images."""
    batcher = make_batcher(turns=SLOW)

    def refuse(_: Arrays, __: Arrays) -> Encoding[Arrays]:
        yield
        raise ValueError("no room")

    first = await begin(generate(batcher, latents(1)))
    failing = asyncio.create_task(submit(batcher, make_job(batcher.model, latents(1), refuse, encode_s)))
    innocent = asyncio.create_task(generate(batcher, latents(3, 1)))
    with pytest.raises(ValueError, match="no room"):
        await failing
    assert same(await innocent, batcher.model, 3, 1)
    await first


async def test_a_run_has_requests_of_one_model_only(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path], metrics: Metrics
) -> None:
    """When the model is replaced, waiting requests are run by the old one, later requests by the new one."""
    batcher = make_batcher(turns=SLOW)
    old, new = batcher.model, OnnxModel(tiny_model(("b", "a", "c"), version="2"))
    first = await begin(generate(batcher, latents(1)))
    before = asyncio.create_task(generate(batcher, latents(3, 3)))
    await asyncio.sleep(0)
    batcher.model = new
    after = asyncio.create_task(generate(batcher, latents(2, 2)))
    assert same(await after, new, 2, 2)
    assert same(await before, old, 3, 3)
    await first
    await asyncio.sleep(0)
    assert value(metrics, "cogan_batches_total", model="tiny") == 3


async def test_a_run_is_as_large_as_its_own_model_allows(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path], metrics: Metrics
) -> None:
    """Requests of a replaced model are run in batches of its own size, not of the new model's."""
    batcher = make_batcher(max_batch=2, turns=SLOW)
    first = await begin(generate(batcher, latents(1)))
    before = asyncio.create_task(generate(batcher, latents(5, 3)))
    await asyncio.sleep(0)
    batcher.model = OnnxModel(tiny_model(version="2"), max_batch=64)
    await asyncio.gather(first, before)
    await asyncio.sleep(0)
    runs = [
        int(sample.labels["rows"])
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name == "cogan_model_run_seconds_count"
    ]
    assert max(runs) == 2


async def test_a_quick_request_alone_needs_no_other_thread(make_batcher: Callable[..., Batcher]) -> None:
    """The first run, whose time is not yet known, and requests that arrive together leave the loop's thread."""
    batcher, own = make_batcher(runs=2), threading.current_thread()
    assert await thread_of(batcher) is not own
    for _ in range(9):  # all of an estimate, most of which nothing else slows down
        await thread_of(batcher)
    assert await thread_of(batcher) is own
    assert own not in await asyncio.gather(*(thread_of(batcher) for _ in range(3)))


async def test_one_slow_run_does_not_make_the_next_request_slow(
    make_batcher: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run that other processes slowed down, a request alone still runs in the loop."""
    batcher = make_batcher()

    def wait_and_run(inputs: Arrays) -> Arrays:
        time.sleep(0.2)
        return OnnxModel.run(batcher.model, inputs)

    for _ in range(5):
        await thread_of(batcher)
    with monkeypatch.context() as slowed:
        slowed.setattr(batcher.model, "run", wait_and_run)
        await thread_of(batcher)
    assert await thread_of(batcher) is threading.current_thread()


async def test_a_new_version_has_no_latency_estimate(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path]
) -> None:
    """The old version's speed says nothing of it: its first request runs in a worker."""
    batcher = make_batcher()
    for _ in range(5):
        await thread_of(batcher)
    assert await thread_of(batcher) is threading.current_thread()
    batcher.model = OnnxModel(tiny_model(version="2", turns=SLOW))
    assert await thread_of(batcher) is not threading.current_thread()


async def test_a_slow_run_never_blocks_the_loop(make_batcher: Callable[..., Batcher]) -> None:
    """What takes long runs in a worker, whether others wait or not."""
    batcher = make_batcher(turns=SLOW)
    for _ in range(2):
        assert await thread_of(batcher) is not threading.current_thread()


@pytest.mark.parametrize("run_share", [0.1, 0.5, 0.9])
async def test_nothing_over_a_millisecond_runs_in_the_loop(
    make_batcher: Callable[..., Batcher], run_share: float
) -> None:
    """Run and encoding count together: just below a millisecond they stay in the loop, above it they leave it."""
    batcher, own = make_batcher(), threading.current_thread()

    async def thread(encode_s: float) -> threading.Thread:
        for _ in range(9):
            batcher.model.latency.add(1, run_share * INLINE_S)
        return await thread_of(batcher, encode_s=encode_s)

    assert await thread((0.98 - run_share) * INLINE_S) is own
    assert await thread((1.02 - run_share) * INLINE_S) is not own


async def test_long_encodings_have_a_thread_of_their_own(make_batcher: Callable[..., Batcher]) -> None:
    """What takes up to 5 ms to encode is encoded by the worker that ran it, what takes longer is not."""
    batcher = make_batcher()
    assert (await thread_of(batcher, encode_s=ENCODE_SLICE_S)).name.startswith("worker")
    assert (await thread_of(batcher, encode_s=LONG)).name.startswith("encode")


async def test_a_long_encoding_delays_no_other_model(make_batcher: Callable[..., Batcher]) -> None:
    """While one request is being encoded, the same worker runs another model's requests, and this one's next."""
    gate, workers = threading.Event(), ThreadPoolExecutor(1, "worker")
    busy, other = (make_batcher(workers=workers, name=name) for name in ("busy", "other"))

    def encode(_: Arrays, outputs: Arrays) -> Encoding[Arrays]:
        while not gate.wait(0.001):
            yield
        return outputs

    long = asyncio.create_task(submit(busy, make_job(busy.model, latents(2, 1), encode, LONG)))
    await asyncio.sleep(0.05)
    assert same(await generate(other, latents(1)), other.model, 1, 0)
    assert same(await generate(busy, latents(1)), busy.model, 1, 0)
    assert not long.done()
    gate.set()
    assert same(await long, busy.model, 2, 1)
    workers.shutdown()


async def test_long_encodings_take_turns(make_batcher: Callable[..., Batcher]) -> None:
    """The one encoder thread gives every request a slice in turn: a shorter one is not behind a longer one."""
    gate, batcher = threading.Event(), make_batcher()

    def encode(_: Arrays, outputs: Arrays) -> Encoding[Arrays]:
        while not gate.wait(0.001):
            yield
        return outputs

    longest = asyncio.create_task(submit(batcher, make_job(batcher.model, latents(2, 1), encode, LONG)))
    await asyncio.sleep(0.05)
    await submit(batcher, make_job(batcher.model, latents(1), outputs_alone, LONG))
    assert not longest.done()
    gate.set()
    assert same(await longest, batcher.model, 2, 1)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_encoding_stops_with_its_request(make_batcher: Callable[..., Batcher], cancelled: bool) -> None:
    """No more images are encoded for a request that is late or cancelled, and what it had open is closed."""
    batcher, encoded, closed = make_batcher(), list[int](), threading.Event()

    def encode(_: Arrays, outputs: Arrays) -> Encoding[Arrays]:
        try:
            for i in range(100_000):
                encoded.append(i)
                time.sleep(0.002)
                yield
        finally:
            closed.set()
        return outputs

    job = make_job(batcher.model, latents(1), encode, LONG)
    request = asyncio.create_task(submit(batcher, job, seconds=30 if cancelled else 2.0))
    while len(encoded) < 3 and not request.done():
        await asyncio.sleep(0.01)
    if cancelled:
        request.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else DeadlineExceeded):
        await request
    assert await asyncio.to_thread(closed.wait, START)
    stopped = len(encoded)
    await asyncio.sleep(0.05)
    assert 3 <= len(encoded) == stopped < 10_000


async def test_a_batch_waits_until_it_runs(make_batcher: Callable[..., Batcher], metrics: Metrics) -> None:
    """Behind another model's run a batch is not stuck, its wait counts as queueing, and late requests leave it."""
    workers, gate = ThreadPoolExecutor(1, "worker"), threading.Event()
    ahead, behind = make_batcher(workers=workers, name="ahead"), make_batcher(workers=workers)

    def wait(start: int, stop: int) -> Arrays:
        assert gate.wait(START)
        return {LATENT: latents(1)[start:stop]}

    first = asyncio.create_task(submit(ahead, Job(ahead.model, 1, wait, outputs_alone, 0.0)))
    while not ahead.queue.longest_run_s:
        await asyncio.sleep(0.01)
    job, deadline = make_job(behind.model, latents(1)), asyncio.get_running_loop().time() + 30
    patient = asyncio.create_task(behind.submit(job, deadline))
    await asyncio.sleep(0.05)
    begun = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        await generate(behind, latents(1), seconds=0.05)
    assert (ahead.queue.longest_run_s > 0.0, behind.queue.longest_run_s) == (True, 0.0)
    waited = time.perf_counter() - begun
    gate.set()
    _, seconds = await patient
    assert seconds["queue"] > waited
    await first
    await asyncio.sleep(0)
    assert value(metrics, "cogan_samples_total", model="tiny") == 1
    workers.shutdown()


async def test_outputs_that_are_not_finite_fail_only_their_request(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path]
) -> None:
    """JSON has no NaN: a request whose images an encoder divides by zero fails, and others in its run do not."""
    path = tiny_model(("digit",), version="2", kind="encoder", turns=SLOW)
    proto = onnx.load(path)
    (last,) = [node for node in proto.graph.node if LATENT in node.output]
    last.output[0] = "sum"
    whiteness = onnx.helper.make_node("ReduceMax", ["digit_share"], ["whitest"], axes=[1])
    proto.graph.node.extend([whiteness, onnx.helper.make_node("Div", ["sum", "whitest"], [LATENT])])
    onnx.save(proto, path)
    batcher = make_batcher(kind="encoder", domains=("digit",))
    batcher.model = OnnxModel(path)
    inputs: list[Arrays] = [
        {"digit": np.full((1, 8, 6, 1), level, np.uint8), PREVIOUS: np.zeros((1, 8), np.float32)} for level in (0, 255)
    ]
    black, white = inputs
    first = await begin(submit(batcher, make_job(batcher.model, white)))
    failing = asyncio.create_task(submit(batcher, make_job(batcher.model, black)))
    innocent = asyncio.create_task(submit(batcher, make_job(batcher.model, white)))
    with pytest.raises(RunFailed) as caught:
        await failing
    assert str(caught.value.__cause__) == "output latent has values that are not finite"
    assert np.array_equal((await innocent)[LATENT], (await first)[LATENT])
