"""Batchers of tiny models, and what they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.engine.batching import Batcher
from service.engine.onnx_model import Latents, OnnxModel
from service.telemetry.metrics import Metrics
from service.timers import Timers

SLOW = 100_000  # turns: at least a tenth of a second


def latents(size: int, seed: int = 0) -> Latents:
    """Draw latents [size, 8]."""
    return np.random.default_rng(seed).normal(size=(size, 8)).astype(np.float32)


@pytest.fixture
def metrics() -> Metrics:
    """Return fresh metrics."""
    return Metrics()


@pytest.fixture
def make_batcher(tiny_model: Callable[..., Path], metrics: Metrics) -> Callable[..., Batcher]:
    """Return what makes a batcher of a tiny model."""

    def make(
        turns: int = 0,
        max_batch: int = 16,
        runs: int = 1,
        max_queue: int = 64,
        workers: Executor | None = None,
        name: str = "tiny",
    ) -> Batcher:
        model = OnnxModel(tiny_model(name=name, turns=turns), max_batch=max_batch)
        return Batcher(model, workers or ThreadPoolExecutor(runs), runs, max_queue, metrics, Timers())

    return make
