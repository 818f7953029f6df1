"""BentoML, run by `bentoml serve`.

- "Parallelize requests handling": a worker process for each processor where the work is bound by the CPU.
- "Configurations": the access log off; a synchronous endpoint runs in the worker's thread pool.
- "Adaptive batching": for models that gain from batches. onnxruntime computes transposed convolutions image
  by image on a CPU, so a batch gains little; BENCH_BATCH=1 measures it so all the same.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml

from tests.benchmarks.serving.peers.drawing import Drawer, processors

BATCHING = {"batchable": True, "max_batch_size": 16, "max_latency_ms": 1000}


@bentoml.service(workers=processors(), logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Generate:
    """The model behind one route."""

    def __init__(self) -> None:
        self.drawer = Drawer()

    if os.environ.get("BENCH_BATCH"):

        @bentoml.api(route="/generate", **BATCHING)
        def generate(self, seed: list[int]) -> list[dict[str, Any]]:
            """Draw the images of seeds that BentoML has joined."""
            return self.drawer.answers(seed)

    else:

        @bentoml.api(route="/generate")
        def generate(self, seed: int) -> dict[str, Any]:
            """Draw the images of a seed."""
            return self.drawer.answers([seed])[0]
