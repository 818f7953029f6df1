"""Batchers of tiny models, and jobs for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.batcher import Batcher, Encoding, Job
from service.engine.onnx_model import Arrays, OnnxModel
from service.metadata import LATENT
from service.telemetry.metrics import Metrics

SLOW = 100_000  # turns: at least a tenth of a second


def latents(size: int, seed: int = 0) -> NDArray[np.float32]:
    """Return random latents [size, 8]."""
    return np.random.default_rng(seed).normal(size=(size, 8)).astype(np.float32)


def outputs_alone(_: Arrays, outputs: Arrays) -> Encoding[Arrays]:
    """Return a model's outputs as they are."""
    yield
    return outputs


def make_job(
    model: OnnxModel,
    rows: NDArray[Any] | Arrays,
    encode: Callable[[Arrays, Arrays], Encoding[Any]] = outputs_alone,
    encode_s: float = 0.0,
) -> Job[Any]:
    """Make a job of latents, or of a model's inputs by name."""
    inputs = {LATENT: rows} if isinstance(rows, np.ndarray) else rows
    size = len(next(iter(inputs.values())))
    return Job(model, size, lambda start, stop: {name: a[start:stop] for name, a in inputs.items()}, encode, encode_s)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Read a metric; 0 if it was never counted."""
    found = (sample for metric in metrics.collect() for sample in metric.samples)
    return next((s.value for s in found if (s.name, s.labels) == (name, labels)), 0.0)


@pytest.fixture
def metrics() -> Metrics:
    """Return fresh metrics."""
    return Metrics()


@pytest.fixture
def encoders() -> Iterator[Executor]:
    """Return the one thread that encodes what takes long."""
    with ThreadPoolExecutor(1, "encode") as pool:
        yield pool


@pytest.fixture
def make_batcher(
    tiny_model: Callable[..., Path], metrics: Metrics, encoders: Executor
) -> Iterator[Callable[..., Batcher]]:
    """Return what makes a batcher of a tiny model."""
    pools = []

    def make(
        turns: int = 0,
        max_batch: int = 16,
        runs: int = 1,
        max_queue: int = 64,
        workers: Executor | None = None,
        name: str = "tiny",
        **changes: Any,
    ) -> Batcher:
        model = OnnxModel(tiny_model(name=name, turns=turns, **changes), max_batch=max_batch)
        if workers is None:
            workers = ThreadPoolExecutor(runs, "worker")
            pools.append(workers)
        return Batcher(model, workers, encoders, runs, max_queue, metrics)

    yield make
    for pool in pools:
        pool.shutdown()
