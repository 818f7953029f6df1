"""One request on its way through a queue: its job, the results so far, and the future that waits for them.

Axes: B batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from service.engine.onnx_model import Arrays, OnnxModel

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
        self.computed = 0  # rows whose outputs are here
        self.waited = 0.0  # seconds until the first batch took it
        self.encoding_s = 0.0
        self.queued_at = time.perf_counter()
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._lock = threading.Lock()  # two workers may have a part each
        self._parts: list[tuple[int, Arrays, Arrays]] = []  # first row, inputs, outputs
        self._encoding: Encoding[Result] | None = None
        self._result: tuple[Result] | None = None
        self._error: Exception | None = None

    @property
    def waiting(self) -> int:
        """Rows not yet given to a batch."""
        return self.job.size - self.taken

    @property
    def succeeded(self) -> bool:
        """Whether its future has a result."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage, once it is done."""
        run = time.perf_counter() - self.queued_at - self.waited - self.encoding_s
        return {"queue": self.waited, "run": run, "encode": self.encoding_s}

    def add(self, start: int, inputs: Arrays, outputs: Arrays, rows: int) -> bool:
        """Store the results of rows from `start` on; return True if they were the last."""
        with self._lock:
            self._parts.append((start, inputs, outputs))
            self.computed += rows
            return self.computed == self.job.size

    def encode(self, until: float) -> bool:
        """Encode until a moment of time.perf_counter(); return False if there is more to encode.

        Stops early if the request is late or cancelled.
        """
        if self._error is not None:
            return True
        begun = time.perf_counter()
        try:
            if self._encoding is None:
                self._encoding = self.job.encode(*_join(self._parts))
                self._parts = []
            while not self.done.done():
                next(self._encoding)
                if time.perf_counter() >= until:
                    return False
            self._encoding.close()
        except StopIteration as stop:
            self._result = (stop.value,)
        except Exception as error:  # of this request alone
            self._error = error
        finally:
            self.encoding_s += time.perf_counter() - begun
        return True

    def fail(self, error: Exception) -> None:
        """Store an error as the outcome."""
        self._error = error

    def settle(self) -> None:
        """Set the future to what the workers have stored, if anything; call it in the event loop."""
        if self.done.done():
            return
        if self._error is not None:
            self.done.set_exception(self._error)
        elif self._result is not None:
            self.done.set_result(self._result[0])

    def expire(self, error: Exception) -> bool:
        """Set the future to an error; return False if it is set already."""
        if self.done.done():
            return False
        self.done.set_exception(error)
        return True


class BatchSlice(NamedTuple):
    """The part of an entry that is in a batch: its rows from `start` to `stop`."""

    entry: Entry[Any]
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def _join(parts: list[tuple[int, Arrays, Arrays]]) -> tuple[Arrays, Arrays]:
    """Concatenate the parts of a request in their order; a job without rows has none."""
    if len(parts) <= 1:
        return parts[0][1:] if parts else ({}, {})
    _, inputs, outputs = zip(*sorted(parts, key=lambda part: part[0]), strict=True)
    return _concatenate(inputs), _concatenate(outputs)


def _concatenate(parts: tuple[Arrays, ...]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
