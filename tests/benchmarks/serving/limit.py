"""The limit: onnxruntime and PNG encoding in bare loops, without HTTP, in a process of its own.

    python -m tests.benchmarks.serving.limit MODEL SECONDS

Every loop runs on one thread, and on as many as there are processors. `run` is onnxruntime alone, on single
latents and on the service's largest batch; `pillow` and `own` add the drawing of the latent, and the JSON
with PNGs by Pillow, as the peers write them, and by this service's writer.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from service.generation import images
from tests.benchmarks.serving.peers.drawing import Drawer, processors

LARGEST_BATCH = 64  # COGAN_MAX_BATCH as it comes


def _run(drawer: Drawer, size: int, _: int) -> int:
    drawer.run(np.zeros((size, drawer.prior.latent_dim), np.float32))
    return size


def _pillow(drawer: Drawer, seed: int) -> int:
    json.dumps(drawer.answers([seed])[0]).encode()
    return 1


def _own(drawer: Drawer, seed: int) -> int:
    drawn = zip(drawer.domains, drawer.draw([seed]), strict=True)
    urls = {name: "data:image/png;base64," + b64encode(images.png(image[0])).decode() for name, image in drawn}
    json.dumps({"domains": drawer.domains, "pairs": [{"seed": seed, "images": urls}]}).encode()
    return 1


def pairs_per_second(step: Callable[[int], int], threads: int, seconds: float) -> float:
    """Repeat a step, which returns how many pairs it made, on threads at once."""

    def loop(thread: int) -> int:
        made, turn = 0, 0
        while time.perf_counter() < end:
            made += step(thread * 10**9 + turn)
            turn += 1
        return made

    step(0)
    begun = time.perf_counter()
    end = begun + seconds
    with ThreadPoolExecutor(threads) as pool:
        made = sum(pool.map(loop, range(threads)))
    return made / (time.perf_counter() - begun)


def threads_of_one_process(processors: int) -> int:
    """Return how many threads a process of the service has, which has up to four of them."""
    return processors // min(4, processors)


def threads_text(threads: int) -> str:
    """Say on how many threads a loop ran, as the results name it."""
    return f"{threads} thread{'s' * (threads > 1)}"


def main() -> None:
    """Print pairs per second as JSON, by "<loop>, <n> threads"."""
    drawer, seconds = Drawer(Path(sys.argv[1])), float(sys.argv[2])
    loops: dict[str, Callable[[int], int]] = {
        "run": partial(_run, drawer, 1),
        f"run, batch {LARGEST_BATCH}": partial(_run, drawer, LARGEST_BATCH),
        "pillow": partial(_pillow, drawer),
        "own": partial(_own, drawer),
    }
    rates = {
        f"{name}, {threads_text(threads)}": pairs_per_second(step, threads, seconds)
        for name, step in loops.items()
        for threads in sorted({1, threads_of_one_process(processors()), processors()})
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
