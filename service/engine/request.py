"""One request on its way through a queue: its job, the results so far, and the future that waits for them.

Axes: B batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from service.engine.onnx_model import Arrays, OnnxModel, concatenate

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
