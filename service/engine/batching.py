"""Joins waiting requests into runs of a model: a bounded queue, deadlines, nothing computed for nobody.

Batches are drawn and encoded in worker threads (service/engine/drawing.py), which take the next one from
the queue themselves, as the event loop may be busy. All else here belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import Executor
from functools import cache, partial
from typing import Any

from service.engine.drawing import Run, draw_batch
from service.engine.entries import Encoded, Entry, Job, Share
from service.engine.entry_queue import EntryQueue
from service.engine.onnx_model import OnnxModel
from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.telemetry.metrics import Metrics
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
        self.model = model  # may be exchanged at any time
        self._workers, self._runs, self._max_queue = workers, runs, max_queue
        self._metrics, self._timers = metrics, timers
        self._queue = EntryQueue(max_queue, runs)
        self._starting = False  # whether a start is due
        metrics.queue_depth.labels(model.name).set_function(lambda: self._queue.depth)
        self._batches, self._samples = metrics.batches.labels(model.name), metrics.samples.labels(model.name)
        self._durations = cache(metrics.inference_duration.labels)

    @property
    def longest_run(self) -> float:
        """The seconds since when the oldest batch is being drawn; 0 where none is."""
        return self._queue.longest_run

    async def draw(self, job: Job[Encoded], deadline: float) -> tuple[Encoded, dict[str, float]]:
        """Wait for a job's answer; return it and the seconds that each part of the work took.

        `deadline` is in the event loop's time. Raises QueueFull at once, DeadlineExceeded at the deadline,
        RunFailed, and what encoding raises; a cancelled caller's latents are not drawn.
        """
        entry = Entry(job)
        if not self._queue.put(entry):
            raise self._refuse(job)
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
            self._queue.drop(entry)
            loop.call_soon(self._count, entry)  # when the answer is on its way

    def _refuse(self, job: Job[Any]) -> QueueFull:
        """Count a request for which there is no room, and tell when to come again."""
        job.model.statistics.fail.add(0.0)
        self._metrics.rejected.labels("queue_full").inc()
        wait = math.ceil(self._queue.depth * job.model.pace.latent_seconds / self._runs) or 1
        return QueueFull(
            f"{self._queue.depth} latents wait for model '{job.model.name}' and this request has {job.size}; "
            f"the queue holds {self._max_queue}. Try again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    def _count(self, entry: Entry[Any]) -> None:
        seconds, statistics = time.perf_counter() - entry.queued_at, entry.job.model.statistics
        if entry.answered:
            statistics.answered(seconds, entry.waited)
            self._metrics.queue_wait.observe(entry.waited)
        else:
            statistics.fail.add(seconds)

    def _expire(self, entry: Entry[Any]) -> None:
        if entry.fail(DeadlineExceeded(f"{entry.job.size} latents were not drawn before the deadline")):
            self._metrics.rejected.labels("deadline").inc()

    def _start_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting = False
        while batch := self._queue.take():
            if self._is_quick(batch):
                self._settle(batch, self._draw(batch))
            else:
                self._workers.submit(self._work, batch, loop)

    def _is_quick(self, batch: list[Share]) -> bool:
        seconds = batch[0].entry.job.model.pace.latent_seconds * (batch[0].stop - batch[0].start)
        return 0.0 < seconds <= SOON_S and self._queue.alone(batch)

    def _work(self, batch: list[Share], loop: asyncio.AbstractEventLoop) -> None:
        """Draw a batch in a worker thread, and queue the next one up there, behind those of other models."""
        loop.call_soon_threadsafe(self._settle, batch, self._draw(batch))
        if following := self._queue.take():
            self._workers.submit(self._work, following, loop)

    def _draw(self, batch: list[Share]) -> list[Run]:
        runs = draw_batch(batch) if self._queue.begin(batch) else []
        self._queue.end(batch)
        return runs

    def _settle(self, batch: list[Share], runs: list[Run]) -> None:
        for share in batch:
            share.entry.settle()
        for run in runs:  # when the answers are on their way
            asyncio.get_running_loop().call_soon(self._record, batch[0].entry.job.model, run)

    def _record(self, model: OnnxModel, run: Run) -> None:
        model.statistics.ran(run.size, run.seconds)
        model.pace.note(run.size, run.seconds)
        self._metrics.batch_size.observe(run.size)
        self._batches.inc()
        self._samples.inc(run.size)
        self._durations(model.name, model.provider).observe(run.seconds)
