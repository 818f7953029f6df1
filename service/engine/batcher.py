"""Dynamic batching: jobs, and a bounded queue per model, whose waiting jobs share runs of the model.

Worker threads run batches and encode results, and take the next batch from the queue themselves, as the event loop
may be busy. Everything else belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from service.engine.onnx_model import Arrays, OnnxModel, concatenate, take
from service.errors import DeadlineExceeded, QueueFull, RunFailed
from service.telemetry.metrics import Metrics

logger = logging.getLogger("cogan.batcher")
INLINE_S = 0.001  # what takes no longer runs in the event loop itself, if nothing else waits
ENCODE_SLICE_S = 0.005  # encoding that takes longer has threads of its own
MAX_QUEUE_PIXELS = 2**27  # of accepted requests, whose images take one to three bytes a pixel
Runs = list[tuple[OnnxModel, int, float]]  # model, rows and seconds of each
Result = TypeVar("Result")
Encoding = Generator[None, None, Result]  # yields after every small part of the work, returns the result


class Job(NamedTuple, Generic[Result]):
    """A forward pass of a model and what to make of it, as functions that worker threads call.

    `inputs` returns rows from one index to another of every input of the model, [B, ...]. `encode` turns all inputs
    and outputs into the result, which takes about `encode_s` seconds. A job without rows is only encoded.
    """

    model: OnnxModel
    size: int  # rows
    inputs: Callable[[int, int], Arrays]
    encode: Callable[[Arrays, Arrays], Encoding[Result]]
    encode_s: float

    @property
    def pixels(self) -> int:
        """Pixels of the images that this job holds in memory."""
        return self.size * self.model.pixels


class Entry(Generic[Result]):
    """A job in a queue. Worker threads compute its result, the event loop sets its future."""

    def __init__(self, job: Job[Result]) -> None:
        self.job = job
        self.taken = 0  # rows given to batches
        self.waited = 0.0  # seconds until the first batch took it
        self.encoding_s = 0.0
        self.queued_at = time.perf_counter()
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._lock = threading.Lock()  # two workers may have a part each
        self._computed = 0  # rows whose outputs are here
        self._parts: list[tuple[int, Arrays, Arrays]] = []  # first row, inputs, outputs
        self._encoding: Encoding[Result] | None = None
        self._outcome: Callable[[], None] | None = None  # sets the future

    @property
    def waiting(self) -> int:
        """Rows not yet given to a batch."""
        return self.job.size - self.taken

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage, once it is done."""
        run = time.perf_counter() - self.queued_at - self.waited - self.encoding_s
        return {"queue": self.waited, "run": run, "encode": self.encoding_s}

    def add(self, start: int, stop: int, inputs: Arrays, outputs: Arrays) -> bool:
        """Store the results of rows from `start` to `stop`; return True if they were the last."""
        with self._lock:
            self._parts.append((start, inputs, outputs))
            self._computed += stop - start
            return self._computed == self.job.size

    def encode(self, until: float) -> bool:
        """Encode until a moment of time.perf_counter(); return False if there is more to encode.

        Stops early if the request is late or cancelled.
        """
        if self._outcome is not None:  # its run failed
            return True
        begun = time.perf_counter()
        try:
            if self._encoding is None:
                parts = sorted(self._parts, key=itemgetter(0)) or [(0, {}, {})]
                _, inputs, outputs = zip(*parts, strict=True)
                self._encoding, self._parts = self.job.encode(concatenate(inputs), concatenate(outputs)), []
            while not self.done.done():
                next(self._encoding)
                if time.perf_counter() >= until:
                    return False
            self._encoding.close()
        except StopIteration as stop:
            self._outcome = partial(self.done.set_result, stop.value)
        except Exception as error:  # of this request alone
            self.fail(error)
        finally:
            self.encoding_s += time.perf_counter() - begun
        return True

    def fail(self, error: Exception) -> None:
        """Store an error as the outcome."""
        self._outcome = partial(self.done.set_exception, error)

    def settle(self) -> None:
        """Set the future to the outcome, if there is one; call it in the event loop."""
        if self._outcome is not None and not self.done.done():
            self._outcome()


class BatchSlice(NamedTuple):
    """The part of an entry that is in a batch: its rows from `start` to `stop`."""

    entry: Entry[Any]
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class BatchQueue:
    """Entries in order, bounded in rows and pixels, and the batches taken from them. One lock guards them all."""

    def __init__(self, max_rows: int, runs: int) -> None:
        """Hold at most `max_rows` waiting rows, and let at most `runs` batches be taken at the same time."""
        self.depth = 0  # rows that wait
        self.max_rows, self.runs = max_rows, runs
        self._pixels = 0  # of all entries that are not removed
        self._lock = threading.Lock()
        self._entries: deque[Entry[Any]] = deque()
        self._started: dict[int, float] = {}  # when each batch began to run, by id; inf before it begins

    @property
    def longest_run_s(self) -> float:
        """Seconds since the oldest running batch began; 0 if none is running."""
        with self._lock:
            return max(0.0, time.perf_counter() - min(self._started.values(), default=math.inf))

    @property
    def busy(self) -> bool:
        """True while rows wait or run."""
        return bool(self.depth or self._started)

    def put(self, entry: Entry[Any]) -> bool:
        """Append an entry; return False if there is no room for all of it."""
        with self._lock:
            pixels = self._pixels + entry.job.pixels
            if self.depth + entry.job.size > self.max_rows or (self._pixels and pixels > MAX_QUEUE_PIXELS):
                return False
            if entry.job.size:
                self._entries.append(entry)
            self.depth += entry.job.size
            self._pixels = pixels
            return True

    def remove(self, entry: Entry[Any]) -> None:
        """Remove an entry that is done, and what of it still waits."""
        with self._lock:
            self._pixels -= entry.job.pixels
            if entry.waiting:
                self._entries.remove(entry)
                self.depth -= entry.waiting

    def take(self) -> list[BatchSlice]:
        """Return the next batch; an empty list if nothing waits or enough batches are taken.

        Free runs share what waits evenly. A batch has entries of one model only, at most its `max_batch` rows.
        """
        batch = list[BatchSlice]()
        with self._lock:
            if not self.depth or len(self._started) == self.runs:
                return batch
            model = self._entries[0].job.model
            room = min(math.ceil(self.depth / (self.runs - len(self._started))), model.max_batch)
            while room and self._entries and self._entries[0].job.model is model:
                entry = self._entries[0]
                part = BatchSlice(entry, entry.taken, entry.taken + min(room, entry.waiting))
                entry.taken = part.stop
                self.depth -= part.rows
                room -= part.rows
                if not entry.waiting:
                    self._entries.popleft()
                batch.append(part)
            self._started[id(batch)] = math.inf
        return batch

    def begin(self, batch: list[BatchSlice]) -> bool:
        """Mark a batch as running and drop cancelled requests; return False if none are left."""
        with self._lock:
            self._started[id(batch)] = now = time.perf_counter()
            batch[:] = [part for part in batch if not part.entry.done.done()]
            for part in batch:
                if part.start == 0:
                    part.entry.waited = now - part.entry.queued_at
            return bool(batch)

    def end(self, batch: list[BatchSlice]) -> None:
        """Mark a batch as finished."""
        with self._lock:
            del self._started[id(batch)]

    def is_alone(self, batch: list[BatchSlice]) -> bool:
        """Return whether a batch is one whole entry and nothing else waits or runs."""
        with self._lock:
            whole = len(batch) == 1 and batch[0].rows == batch[0].entry.job.size
            return whole and len(self._started) == 1 and not self.depth


class Batcher:
    """Runs the jobs of one model. Greedy: a free worker takes what waits, up to the largest batch, at once.

    A job that is alone and known to be quick runs in the event loop: waking a worker takes about as long as a small
    network.
    """

    def __init__(
        self, model: OnnxModel, workers: Executor, encoders: Executor, runs: int, max_queue: int, metrics: Metrics
    ) -> None:
        """Keep at most `runs` batches in `workers` at the same time, and `max_queue` rows waiting.

        `encoders` encode what takes long, so that the workers' next batches, of any model, do not wait for it.
        """
        self.model = model  # may be replaced at any time
        self._workers, self._encoders, self._metrics = workers, encoders, metrics
        self.queue = BatchQueue(max_queue, runs)
        self._starting = False  # whether _start_batches is scheduled
        metrics.watch_queue(model.name, lambda: self.queue.depth)

    async def submit(self, job: Job[Result], deadline: float) -> tuple[Result, dict[str, float]]:
        """Return a job's result and the seconds of each stage; `deadline` is in the event loop's time.

        Raises QueueFull at once, DeadlineExceeded at the deadline, RunFailed, and what encoding raises. If the
        caller is cancelled, no more of its rows are run and encoding stops.
        """
        loop, entry = asyncio.get_running_loop(), Entry(job)
        if not self.queue.put(entry):
            raise self._refuse(job)
        alarm = loop.call_at(deadline, self._expire, entry)
        if not job.size:
            self._encoders.submit(self._encode, entry)
        elif not self._starting:  # after all requests that arrived in this iteration of the loop
            self._starting = True
            loop.call_soon(self._start_batches)
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
            self.queue.remove(entry)
            loop.call_soon(self._count, entry)  # while the response is being sent

    def _refuse(self, job: Job[Any]) -> QueueFull:
        """Count a rejected request and return its error, with the seconds until there should be room."""
        self._metrics.of_model(job.model.name, job.model.version).failed.observe(0.0)
        self._metrics.rejected.labels("queue_full").inc()
        wait = math.ceil(self.queue.depth * job.model.latency.row_s / self.queue.runs) or 1
        return QueueFull(
            f"{self.queue.depth} images wait for model '{job.model.name}' and this request needs {job.size} of "
            f"{job.model.pixels} pixels; the queue holds {self.queue.max_rows} images and {MAX_QUEUE_PIXELS} pixels. "
            f"Retry in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    def _count(self, entry: Entry[Any]) -> None:
        model, seconds = entry.job.model, time.perf_counter() - entry.queued_at
        counted = self._metrics.of_model(model.name, model.version)
        if entry.done.cancelled() or entry.done.exception() is not None:
            counted.failed.observe(seconds)
        else:
            counted.succeeded.observe(seconds)
            counted.queued.observe(entry.waited)

    def _expire(self, entry: Entry[Any]) -> None:
        if not entry.done.done():
            waited = time.perf_counter() - entry.queued_at
            late = f"{entry.job.size} images were not computed within {waited:.2g} s: request fewer, or later"
            entry.done.set_exception(DeadlineExceeded(late))
            self._metrics.rejected.labels("deadline").inc()

    def _start_batches(self) -> None:
        self._starting = False
        while batch := self.queue.take():
            job = batch[0].entry.job
            run_s = job.model.latency.row_s * batch[0].rows
            if run_s > 0.0 and run_s + job.encode_s <= INLINE_S and self.queue.is_alone(batch):
                self._settle(*self._process(batch))
            else:
                self._workers.submit(self._work, batch)

    def _work(self, batch: list[BatchSlice]) -> None:
        """Process a batch in a worker thread, then queue the next one there, behind those of other models."""
        loop = batch[0].entry.done.get_loop()
        loop.call_soon_threadsafe(self._settle, *self._process(batch))
        if following := self.queue.take():
            self._workers.submit(self._work, following)

    def _process(self, batch: list[BatchSlice]) -> tuple[list[Entry[Any]], Runs]:
        """Run a batch and encode what is quick to encode; return the entries that are done, and the runs."""
        done = list[Entry[Any]]()
        try:
            computed, runs = run_batch(batch) if self.queue.begin(batch) else ([], [])
            for entry in computed:
                if entry.job.encode_s > ENCODE_SLICE_S:
                    self._encoders.submit(self._encode, entry)
                else:
                    entry.encode(math.inf)
                    done.append(entry)
        finally:
            self.queue.end(batch)
        return done, runs

    def _encode(self, entry: Entry[Any]) -> None:
        """Encode for a while in an encoder thread, then queue the rest behind what others have to encode."""
        if entry.encode(time.perf_counter() + ENCODE_SLICE_S):
            entry.done.get_loop().call_soon_threadsafe(entry.settle)
        else:
            self._encoders.submit(self._encode, entry)

    def _settle(self, entries: list[Entry[Any]], runs: Runs) -> None:
        for entry in entries:
            entry.settle()
        if runs:  # while the responses are being sent
            asyncio.get_running_loop().call_soon(self._record, runs)

    def _record(self, runs: Runs) -> None:
        for model, rows, seconds in runs:
            model.latency.add(rows, seconds)
            self._metrics.of_model(model.name, model.version).ran(rows, seconds, model.provider)


def run_batch(batch: list[BatchSlice]) -> tuple[list[Entry[Any]], Runs]:
    """Run slices of one model; return the entries that are computed or failed, and the runs: one, unless it fails.

    Then every slice gets a run of its own, so that only the request that made it fail gets an error. Outputs that
    are not finite, which JSON cannot hold, are a failure, too.
    """
    model = batch[0].entry.job.model
    try:
        inputs = concatenate([part.entry.job.inputs(part.start, part.stop) for part in batch])
        begun = time.perf_counter()
        outputs = model.run(inputs)
        run = model, sum(part.rows for part in batch), time.perf_counter() - begun
        if wrong := [t.name for t in model.outputs if t.datatype == "FP32" and not np.isfinite(outputs[t.name]).all()]:
            raise FloatingPointError(f"output {wrong[0]} has values that are not finite")
    except Exception as error:  # onnxruntime's errors share no base class
        if len(batch) > 1:
            each = [run_batch([part]) for part in batch if not part.entry.done.done()]
            return [entry for entries, _ in each for entry in entries], [run for _, runs in each for run in runs]
        failure = RunFailed(f"model '{model.name}' failed on this request's input")
        failure.__cause__ = error
        batch[0].entry.fail(failure)
        return [batch[0].entry], []
    finished, end = list[Entry[Any]](), 0
    for entry, start, stop in batch:
        begin, end = end, end + stop - start
        if entry.add(start, stop, take(inputs, begin, end), take(outputs, begin, end)):
            finished.append(entry)
    return finished, [run]
