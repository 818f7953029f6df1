"""Draws one batch in a worker thread: its latents, one run of the model, and the answers that are then whole.

Axes: B batch, Z latent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.engine.entries import Share
from service.errors import RunFailed


class Run(NamedTuple):
    """A run of a model: of how many latents, and the seconds that it took."""

    size: int
    seconds: float


def draw_batch(batch: Sequence[Share]) -> list[Run]:
    """Draw shares of one model and return the runs: one, unless that fails.

    Then every share has a run of its own, so that only who made it fail is answered with an error.
    """
    model = batch[0].entry.job.model
    try:
        latents = np.concatenate([share.entry.job.latents(share.start, share.stop) for share in batch])
        begun = time.perf_counter()
        images = model.run(latents)
        run = Run(len(latents), time.perf_counter() - begun)
    except Exception as error:  # onnxruntime's errors share no base class
        return _part(batch, error)
    offset = 0
    for entry, start, stop in batch:
        part = slice(offset, offset := offset + stop - start)
        entry.receive(start, latents[part], {name: image[part] for name, image in images.items()})
    return [run]


def _part(batch: Sequence[Share], error: Exception) -> list[Run]:
    """Draw every share by itself; give up the one that fails even so."""
    if len(batch) > 1:
        return [run for share in batch if not share.entry.done.done() for run in draw_batch([share])]
    entry = batch[0].entry
    failure = RunFailed(f"model '{entry.job.model.name}' failed on this request's latents")
    failure.__cause__ = error
    entry.give_up(failure)
    return []
