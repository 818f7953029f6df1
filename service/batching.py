"""Joins waiting requests into runs of a model: a bounded queue, deadlines, nothing computed for nobody.

Batches are drawn and encoded in worker threads (service/drawing.py), which take the next one themselves: the
event loop may be busy. What a lock guards is said where it is; all else belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Executor
from functools import cache, partial
from typing import Any

from service.drawing import Run, draw_batch
from service.entries import Encoded, Entry, Job, Share
from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.metrics import Metrics
from service.onnx_model import OnnxModel
from service.timers import Timers

logger = logging.getLogger("cogan.batching")


SOON_S = 0.001  # what takes no longer is drawn by the event loop itself, if it is alone


class Batcher:
    """The queue of one model. Greedy: a free worker takes what waits, up to the largest batch, at once.

    A request that comes alone is drawn where it is, where that is known to be quick: to wake another thread
    takes about as long as a small network.
    """

    def __init__(
        self,
        model: OnnxModel,
        workers: Executor,
        runs: int,
        max_queue: int,
        metrics: Metrics,
        timers: Timers,
    ) -> None:
        """Let at most `runs` batches be in `workers` at the same time."""
        self.model = model  # may be exchanged at any time: a batch has entries of one model alone
        self._workers, self._runs, self._max_queue = workers, runs, max_queue
        self._metrics, self._timers = metrics, timers
        self._lock = threading.Lock()  # guards the next three, and what entries have given to runs
        self._queue: deque[Entry[Any]] = deque()
        self._depth = 0  # latents that wait
        self._running: dict[int, float] = {}  # since when batches are being drawn, by id
        self._starting = False  # whether a start is due
        self._latent_seconds = 0.0  # smoothed duration of a run divided by its size
        metrics.queue_depth.labels(model.name).set_function(lambda: self._depth)
        self._batches, self._samples = metrics.batches.labels(model.name), metrics.samples.labels(model.name)
        self._durations = cache(metrics.inference_duration.labels)

    @property
    def longest_run(self) -> float:
        """The seconds since when the oldest batch is being drawn; 0 where none is."""
        with self._lock:
            return max((time.perf_counter() - begun for begun in self._running.values()), default=0.0)

    async def draw(self, job: Job[Encoded], deadline: float) -> tuple[Encoded, dict[str, float]]:
        """Wait for a job's answer; return it and the seconds that each part of the work took.

        `deadline` is in the event loop's time. Raises QueueFull at once, DeadlineExceeded at the deadline,
        RunFailed, and what encoding raises; a cancelled caller's latents are not drawn.
        """
        entry = self._queue_up(job)
        loop = asyncio.get_running_loop()
        alarm = self._timers.call_at(deadline, partial(self._expire, entry))
        if not self._starting:  # after all that came at the same time
            self._starting = True
            loop.call_soon(self._start_runs, loop)
        try:
            return await entry.done, entry.seconds()
        except asyncio.CancelledError:
            self._metrics.rejected.labels("cancelled").inc()
            raise
        except RunFailed as failure:
            logger.exception("a run failed", exc_info=failure.__cause__)
            raise
        finally:
            alarm.cancel()
            with self._lock:
                self._drop(entry)
            self._count(entry)

    def _queue_up(self, job: Job[Encoded]) -> Entry[Encoded]:
        with self._lock:
            if self._depth + job.size <= self._max_queue:
                entry = Entry(job)
                self._queue.append(entry)
                self._depth += job.size
                return entry
        job.model.statistics.fail.add(0.0)
        self._metrics.rejected.labels("queue_full").inc()
        wait = math.ceil(self._depth * self._latent_seconds / self._runs) or 1
        raise QueueFull(
            f"{self._depth} latents wait for model '{job.model.name}' and this request has {job.size}; "
            f"the queue holds {self._max_queue}. Try again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    def _count(self, entry: Entry[Any]) -> None:
        seconds, statistics = time.perf_counter() - entry.queued_at, entry.job.model.statistics
        if entry.drawn == entry.job.size:
            statistics.answered(seconds, entry.waited)
        else:
            statistics.fail.add(seconds)

    def _expire(self, entry: Entry[Any]) -> None:
        self._metrics.rejected.labels("deadline").inc()
        entry.fail(DeadlineExceeded(f"{entry.job.size} latents were not drawn before the deadline"))

    def _start_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = False
        while batch := self._begin():
            if self._is_quick(batch):
                self._settle(batch, draw_batch(batch))
                self._end(batch)
            else:
                self._workers.submit(self._work, batch, loop)

    def _is_quick(self, batch: list[Share]) -> bool:
        alone = len(batch) == 1 and len(self._running) == 1 and not self._depth
        return alone and 0.0 < self._latent_seconds * (batch[0].stop - batch[0].start) <= SOON_S

    def _work(self, batch: list[Share], loop: asyncio.AbstractEventLoop) -> None:
        """Draw a batch in a worker thread, and queue the next one up there, behind those of other models."""
        runs = draw_batch(batch)
        self._end(batch)
        loop.call_soon_threadsafe(self._settle, batch, runs)
        if following := self._begin():
            self._workers.submit(self._work, following, loop)

    def _settle(self, batch: list[Share], runs: list[Run]) -> None:
        for run in runs:
            self._record(batch[0].entry.job.model, run)
        for share in batch:
            share.entry.settle()

    def _begin(self) -> list[Share]:
        """Take a batch for a worker, where one is free and something waits."""
        with self._lock:
            if not self._depth or len(self._running) == self._runs:
                return []
            share = math.ceil(self._depth / (self._runs - len(self._running)))
            batch = self._take(min(self.model.max_batch, share))
            if batch:
                self._running[id(batch)] = time.perf_counter()
            return batch

    def _end(self, batch: list[Share]) -> None:
        with self._lock:
            del self._running[id(batch)]

    def _take(self, room: int) -> list[Share]:
        """Take up to `room` latents of one model from the queue's head; who no longer waits is dropped.

        The caller has the lock, as of `_drop`.
        """
        batch: list[Share] = []
        while room and self._queue:
            entry = self._queue[0]
            if entry.done.done():
                self._drop(entry)
                continue
            if batch and entry.job.model is not batch[0].entry.job.model:
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
            batch.append(Share(entry, start, stop))
        return batch

    def _drop(self, entry: Entry[Any]) -> None:
        if entry.waiting:
            self._queue.remove(entry)
            self._depth -= entry.waiting
            entry.taken = entry.job.size

    def _record(self, model: OnnxModel, run: Run) -> None:
        model.statistics.ran(run.size, run.seconds)
        self._metrics.batch_size.observe(run.size)
        self._batches.inc()
        self._samples.inc(run.size)
        self._durations(model.name, model.version, model.provider).observe(run.seconds)
        self._latent_seconds += 0.1 * (run.seconds / run.size - self._latent_seconds)
