"""Joins waiting requests into runs of a model: a bounded queue, deadlines, nothing computed for nobody.

All state belongs to the event loop; only the runs themselves happen in worker threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from concurrent.futures import Executor
from contextvars import Context

import numpy as np

from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.metrics import Metrics
from service.onnx_model import Images, Latents, OnnxModel

logger = logging.getLogger("cogan.batching")


class Entry:
    """One request in the queue: its latents [B, Z], the images drawn so far, and who waits for them."""

    def __init__(self, model: OnnxModel, latents: Latents) -> None:
        self.model, self.latents = model, latents
        self.images: Images = {
            domain.name: np.empty((len(latents), domain.height, domain.width, domain.channels), np.uint8)
            for domain in model.metadata.domains
        }
        self.taken = 0  # latents given to runs
        self.drawn = 0  # latents whose images are here
        self.queued_at = time.perf_counter()
        self.waited = 0.0  # seconds until the first run took it
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """Latents not yet given to a run."""
        return len(self.latents) - self.taken

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless it is answered or abandoned already."""
        if not self.done.done():
            self.done.set_exception(error)

    def receive(self, images: Images, start: int, stop: int) -> None:
        """Take the images of latents `start` to `stop`; the last ones answer the request."""
        for name, part in images.items():
            self.images[name][start:stop] = part
        self.drawn += stop - start
        if self.drawn == len(self.latents) and not self.done.done():
            self.done.set_result(None)


Share = tuple[Entry, int, int]  # the entry, and which of its latents: start, stop


class Batcher:
    """The queue of one model. Greedy: a free worker takes what waits, up to the largest batch, at once."""

    def __init__(
        self, model: OnnxModel, workers: Executor, runs: int, max_queue: int, metrics: Metrics
    ) -> None:
        """Let at most `runs` of the model happen in `workers` at the same time."""
        self.model = model  # may be exchanged at any time: a run has entries of one model alone
        self._workers, self._runs, self._max_queue, self._metrics = workers, runs, max_queue, metrics
        self._queue: deque[Entry] = deque()
        self._depth = 0  # latents that wait
        self._running: set[asyncio.Task[None]] = set()
        self._latent_seconds = 0.0  # smoothed duration of a run divided by its size
        metrics.queue_depth.labels(model.name).set_function(lambda: self._depth)
        for counter in (metrics.batches, metrics.samples):
            counter.labels(model.name)  # there from the start, as 0

    async def draw(self, model: OnnxModel, latents: Latents, deadline: float) -> Entry:
        """Wait until `model` has drawn latents [B, Z]; the entry has their images, in their order.

        `deadline` is in the event loop's time. Raises QueueFull at once, DeadlineExceeded at the deadline,
        and RunFailed; a cancelled caller's latents are not drawn.
        """
        self._admit(model, len(latents))
        entry = Entry(model, latents)
        self._queue.append(entry)
        self._depth += entry.waiting
        alarm = asyncio.get_running_loop().call_at(deadline, self._expire, entry)
        self._start_runs()
        try:
            await entry.done
        except asyncio.CancelledError:
            self._metrics.rejected.labels("cancelled").inc()
            raise
        except RunFailed as failure:
            logger.exception("a run failed", exc_info=failure.__cause__)
            raise
        finally:
            alarm.cancel()
            if entry.waiting:
                self._drop(entry)
            self._count(entry)
        return entry

    def _admit(self, model: OnnxModel, size: int) -> None:
        if self._depth + size <= self._max_queue:
            return
        model.statistics.fail.add(0.0)
        self._metrics.rejected.labels("queue_full").inc()
        wait = math.ceil(self._depth * self._latent_seconds / self._runs) or 1
        raise QueueFull(
            f"{self._depth} latents wait for model '{self.model.name}' and this request has {size}; "
            f"the queue holds {self._max_queue}. Try again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    def _count(self, entry: Entry) -> None:
        seconds, statistics = time.perf_counter() - entry.queued_at, entry.model.statistics
        if entry.drawn == len(entry.latents):
            statistics.answered(seconds, entry.waited)
        else:
            statistics.fail.add(seconds)

    def _expire(self, entry: Entry) -> None:
        self._metrics.rejected.labels("deadline").inc()
        entry.fail(DeadlineExceeded(f"{len(entry.latents)} latents were not drawn before the deadline"))

    def _start_runs(self) -> None:
        while self._depth and (free := self._runs - len(self._running)):
            batch = self._take(min(self.model.max_batch, math.ceil(self._depth / free)))
            if batch:
                task = asyncio.get_running_loop().create_task(self._run(batch), context=Context())
                self._running.add(task)
                task.add_done_callback(self._end_run)

    def _end_run(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start_runs()

    def _take(self, room: int) -> list[Share]:
        """Take up to `room` latents of one model from the queue's head; who no longer waits is dropped."""
        batch: list[Share] = []
        while room and self._queue:
            entry = self._queue[0]
            if entry.done.done():
                self._drop(entry)
                continue
            if batch and entry.model is not batch[0][0].model:
                break
            start, stop = entry.taken, entry.taken + min(room, entry.waiting)
            if start == 0:
                entry.waited = time.perf_counter() - entry.queued_at
                self._metrics.queue_wait.observe(entry.waited)
            entry.taken = stop
            self._depth -= stop - start
            room -= stop - start
            if not entry.waiting:
                self._queue.popleft()
            batch.append((entry, start, stop))
        return batch

    def _drop(self, entry: Entry) -> None:
        self._queue.remove(entry)
        self._depth -= entry.waiting
        entry.taken = len(entry.latents)

    async def _run(self, batch: list[Share]) -> None:
        model = batch[0][0].model
        latents = np.concatenate([entry.latents[start:stop] for entry, start, stop in batch])
        try:
            loop = asyncio.get_running_loop()
            images, seconds = await loop.run_in_executor(self._workers, _timed_run, model, latents)
        except Exception as error:
            await self._fail_or_part(batch, error)
            return
        self._record(model, len(latents), seconds)
        offset = 0
        for entry, start, stop in batch:
            part = slice(offset, offset := offset + stop - start)
            entry.receive({name: image[part] for name, image in images.items()}, start, stop)

    async def _fail_or_part(self, batch: list[Share], error: Exception) -> None:
        """Find who made a run fail: part the batch, so that only they are answered with an error."""
        if len(batch) > 1:
            for share in batch:
                if not share[0].done.done():
                    await self._run([share])
            return
        failure = RunFailed(f"model '{self.model.name}' failed on this request's latents")
        failure.__cause__ = error
        batch[0][0].fail(failure)

    def _record(self, model: OnnxModel, size: int, seconds: float) -> None:
        metrics = self._metrics
        model.statistics.ran(size, seconds)
        metrics.batch_size.observe(size)
        metrics.batches.labels(model.name).inc()
        metrics.samples.labels(model.name).inc(size)
        metrics.inference_duration.labels(model.name, model.version, model.provider).observe(seconds)
        self._latent_seconds += 0.1 * (seconds / size - self._latent_seconds)


def _timed_run(model: OnnxModel, latents: Latents) -> tuple[Images, float]:
    start = time.perf_counter()
    return model.run(latents), time.perf_counter() - start
