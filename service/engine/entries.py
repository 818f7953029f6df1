"""One request on its way through a queue: what is to be drawn, what is here so far, and who waits for it.

Axes: B batch, Z latent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from service.engine.onnx_model import Images, Latents, OnnxModel

Encoded = TypeVar("Encoded")


class Job(NamedTuple, Generic[Encoded]):
    """What a request asks of a model, as functions that worker threads call.

    `latents` returns those from one index to another, [B, Z]; `encode` makes the answer of all latents and
    all their images.
    """

    model: OnnxModel
    size: int
    latents: Callable[[int, int], Latents]
    encode: Callable[[Latents, Images], Encoded]


class Entry(Generic[Encoded]):
    """A job in the queue: workers put its answer together, the event loop hands it over."""

    def __init__(self, job: Job[Encoded]) -> None:
        self.job = job
        self.taken = 0  # latents given to runs
        self.drawn = 0  # latents whose images are here
        self.waited = 0.0  # seconds until the first run took it
        self.encoding = 0.0  # seconds
        self.queued_at = time.perf_counter()
        self.done: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        self._lock = threading.Lock()  # two workers may have a part each
        self._parts: list[tuple[int, Latents, Images]] = []  # each from a latent on
        self._answer: Encoded | None = None
        self._error: Exception | None = None

    @property
    def waiting(self) -> int:
        """Latents not yet given to a run."""
        return self.job.size - self.taken

    @property
    def answered(self) -> bool:
        """Whether it has its answer, which is no error."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None

    def seconds(self) -> dict[str, float]:
        """Return the seconds that each part of the work took, once it is done."""
        run = time.perf_counter() - self.queued_at - self.waited - self.encoding
        return {"queue": self.waited, "run": run, "encode": self.encoding}

    def receive(self, start: int, latents: Latents, images: Images) -> None:
        """Take the images of latents from `start` on; whoever brings the last ones encodes the answer."""
        with self._lock:
            self._parts.append((start, latents, images))
            self.drawn += len(latents)
            last = self.drawn == self.job.size
        if last and not self.done.done():
            self._encode()

    def _encode(self) -> None:
        begun = time.perf_counter()
        try:
            self._answer = self.job.encode(*_join(self._parts))
        except Exception as error:  # of this request alone
            self._error = error
        self.encoding = time.perf_counter() - begun

    def give_up(self, error: Exception) -> None:
        """Keep an error as the answer."""
        self._error = error

    def settle(self) -> None:
        """Hand over what the workers have left, unless they are not through or nobody waits any more."""
        if self.done.done():
            return
        if self._error is not None:
            self.done.set_exception(self._error)
        elif self._answer is not None:
            self.done.set_result(self._answer)

    def fail(self, error: Exception) -> bool:
        """Answer with an error at once; False where it is answered already."""
        if self.done.done():
            return False
        self.done.set_exception(error)
        return True


class Share(NamedTuple):
    """The part of an entry that is in a batch: its latents from `start` to `stop`."""

    entry: Entry[Any]
    start: int
    stop: int


def _join(parts: list[tuple[int, Latents, Images]]) -> tuple[Latents, Images]:
    """Put the parts of a request together, in their order."""
    if len(parts) == 1:
        return parts[0][1:]
    _, latents, images = zip(*sorted(parts, key=lambda part: part[0]), strict=True)
    return np.concatenate(latents), {
        name: np.concatenate([part[name] for part in images]) for name in images[0]
    }
