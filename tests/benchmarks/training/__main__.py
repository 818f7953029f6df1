"""How much faster a training step is than the steps of earlier systems, at equal architecture and batch.

    python -m tests.benchmarks.training training/recipes/digit_negative.toml --repeats 5
    python -m tests.benchmarks.training training/recipes/digit_negative.toml --accelerator cuda --steps 100

Ours: the shared layers run once for all domains, one run of the generator serves both updates, channels last,
and bfloat16 where the machine is good at it. Theirs: see loops.py. All update the same networks by the same
losses without a penalty, in turns in one process; the medians of all turns are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from tests.benchmarks.training.loops import LOOPS, Loop
from training.config import Precision
from training.config.experiment import Experiment, load_experiment
from training.engine.machine import Machine, describe_machine
from training.engine.trainer import Trainer
from training.runs.figures import Value, markdown

Kind = Literal["cpu", "cuda", "mps"]
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


def main() -> None:
    """Print a table of images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--accelerator", choices=["auto", *KINDS], default="cpu")
    options = parser.parse_args()
    experiment = without_penalty(load_experiment(options.experiment))
    device = Machine(accelerator=options.accelerator).device("a benchmark")
    seconds = measure(arms(experiment, device), options.repeats, options.steps, partial(synchronise, device))
    machine = describe_machine(device, processes=1, precision="")
    print(f"{experiment.name} on {machine['device']}, {torch.get_num_threads()} threads of the CPU\n")
    print(markdown(rows(seconds, experiment.batch_size * len(experiment.domains))))


def without_penalty(experiment: Experiment) -> Experiment:
    """Return the experiment as all arms can run it."""
    discriminator = replace(experiment.discriminator, penalty="none", penalties=())
    return replace(experiment, discriminator=discriminator, couplings=())


def synchronise(device: torch.device) -> None:
    """Wait until a device has computed what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def arms(experiment: Experiment, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return a step of each arm by its name, on the same images at random and on one device."""
    images = {
        domain.name: torch.randint(256, (1000, domain.channels, *experiment.size), dtype=torch.uint8)
        for domain in experiment.domains
    }
    precisions: tuple[Precision, ...] = get_args(Precision)
    machines = {name: Machine(accelerator=KINDS[device.type], precision=name) for name in precisions}
    ours = {f"ours, {name}": Trainer(experiment, images, one.fabric()).step for name, one in machines.items()}
    return {name: partial(step, Loop(experiment, images, device)) for name, step in LOOPS.items()} | ours


def measure(
    steps: dict[str, Callable[[], None]], repeats: int, count: int, wait: Callable[[], None]
) -> dict[str, list[float]]:
    """Time `count` steps of each arm in turns; return the seconds of one, a value a turn.

    `wait` returns when the device has computed all that it was given.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(count):
                step()
            wait()
            if turn:  # the first warms up
                seconds[name].append((time.perf_counter() - begun) / count)
    return seconds


def rows(seconds: dict[str, list[float]], images: int) -> list[dict[str, Value]]:
    """Return a row for each arm: images per second, and how much faster than each of the earlier systems."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    table: list[dict[str, Value]] = []
    for name, values in seconds.items():
        row: dict[str, Value] = {"step": name, "images/s": round(images / medians[name])}
        row |= {f"x {loop}": f"{medians[loop] / medians[name]:.2f}" for loop in LOOPS}
        table.append(row | {"spread": f"{(max(values) - min(values)) / medians[name]:.0%}"})
    return table


if __name__ == "__main__":
    main()
