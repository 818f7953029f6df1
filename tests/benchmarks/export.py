"""CPU time of a pair in onnxruntime: of generators as they are exported, and as PyTorch's exporter leaves them.

    python -m tests.benchmarks.export training/recipes/digit_edge.toml training/recipes/faces_drawn.toml

One thread; the two graphs take turns, so that others on the machine slow both. The weights are those that a training
begins with: time does not depend on them.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from service.metadata import ModelMetadata, Provenance
from training.config.experiment import Experiment, load_experiment
from training.engine.state import build_generator
from training.export import domains_of
from training.onnx_export import make_graph, trace
from training.onnx_rewrite import rewrite

BATCHES = (1, 8, 32)
PAIRS = 256  # of a turn
TURNS = 15


def main() -> None:
    """Print a table of the recipes named."""
    print("| recipe | batch | as PyTorch exports it, us | rewritten, us | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for file in map(Path, sys.argv[1:]):
        experiment = load_experiment(file)
        for batch, (plain, fast) in measure(experiment).items():
            print(f"| `{experiment.name}` | {batch} | {plain:,.0f} | {fast:,.0f} | {plain / fast:.2f} |")


def measure(experiment: Experiment) -> dict[int, tuple[float, float]]:
    """Return by batch the microseconds of CPU time that a pair takes before and after the graph is rewritten."""
    nothing = Provenance(experiment={}, seed=0, steps=0, images_seen=0, commit="", versions={})
    metadata = ModelMetadata(
        kind="generator",
        name=experiment.name,
        version="1",
        prior=experiment.latent_prior,
        domains=domains_of(experiment, None),
        provenance=nothing,
        quality={},
        data_license=experiment.data_license,
    )
    graph = make_graph(build_generator(experiment), metadata)
    plain = trace(graph)
    fast = copy.deepcopy(plain)
    rewrite(fast)
    sessions, latents = [open_session(plain), open_session(fast)], graph.examples(max(BATCHES))[0].numpy()
    found: dict[int, tuple[float, float]] = {}
    for batch in BATCHES:
        turns = [[cpu_time(session, latents[:batch]) for session in sessions] for _ in range(TURNS)]
        before, after = (statistics.median(times) for times in zip(*turns, strict=True))
        found[batch] = (before, after)
    return found


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def cpu_time(session: onnxruntime.InferenceSession, latents: NDArray[np.float32]) -> float:
    """Return the microseconds of CPU time of a pair, over a turn of batches of these latents."""
    batch = len(latents)
    start = time.process_time()
    for _ in range(max(PAIRS // batch, 1)):
        session.run(None, {"latent": latents})
    return (time.process_time() - start) / (max(PAIRS // batch, 1) * batch) * 1e6


if __name__ == "__main__":
    main()
