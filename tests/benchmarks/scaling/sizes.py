"""Print what one process with one thread gives by image size: .venv/bin/python -m tests.benchmarks.scaling.sizes.

Models are the architecture `modern` at width 0.5 with two domains in colour, not trained: as fast as trained
ones, but their images compress worse. 32 connections, each request one pair of a new seed, as JSON with PNGs. Processor
seconds are the service's own; the load generator shares the machine.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro

from service.metadata import Domain, ModelMetadata, Prior, Provenance
from tests.benchmarks.serving.load import Load, Question, Sample, measure
from tests.benchmarks.serving.processes import adopt_orphans
from tests.benchmarks.serving.servers import ROOT, Arm, serving
from training.networks.coupled import CoupledGenerator
from training.networks.weights import initialise
from training.onnx_export import write_onnx
from training.zoo import GENERATORS

PRIOR = Prior(distribution="normal", latent_dim=100)
ONE = {"COGAN_PROCESSES": "1", "COGAN_THREADS": "1"}


@dataclass(frozen=True)
class Options:
    """What is measured, and how long."""

    sides: tuple[int, ...] = (28, 64, 128, 256)
    """Sides of the images in pixels."""
    seconds: int = 5
    """Length of a measurement."""
    repeats: int = 3
    """Measurements of each size, in turns."""
    service_python: Path = ROOT / ".venv-service/bin/python"
    """Environment of the service."""


def install(side: int, repository: Path) -> Path:
    """Export an untrained model of that size, and return its file."""
    torch.manual_seed(0)
    table = GENERATORS[f"modern_{side}"]
    generator = CoupledGenerator(table, {"one": 3, "other": 3}, PRIOR.latent_dim, 0.5, len(table.layers) - 1)
    initialise(generator, "he")
    domains = tuple(Domain(name=name, height=side, width=side, channels=3, description="") for name in generator.heads)
    made = Provenance(experiment={}, seed=0, steps=0, images_seen=0, commit="untrained", versions={})
    metadata = ModelMetadata(
        name=f"side_{side}", version="1", prior=PRIOR, domains=domains, provenance=made, quality={}, data_license="none"
    )
    file = repository / metadata.name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    write_onnx(generator.eval(), metadata, file)
    return file


def main() -> None:
    """Measure every size in turns, and print a table."""
    options = tyro.cli(Options)
    adopt_orphans()
    arm = Arm("one thread", (str(options.service_python), "-m", "service"), environment=ONE)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        models = {side: install(side, Path(folder) / str(side)) for side in options.sides}
        samples: dict[int, list[Sample]] = {side: [] for side in options.sides}
        for repeat in range(options.repeats):
            for side, model in models.items():
                with serving(arm, model, Path(folder)) as server:
                    load = Load(connections=32, seconds=options.seconds)
                    measure(server, Load(32, 1), Question(), arm=arm.name, what="warm", repeat=repeat, domains=2)
                    samples[side].append(
                        measure(server, load, Question(), arm=arm.name, what=str(side), repeat=repeat, domains=2)
                    )
    print("| pixels | requests/s | p99 | core seconds for 1,000 pairs | core hours for a million pairs | memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for side, taken in samples.items():
        cost = median(sample.cpu_seconds_per_1000_pairs for sample in taken)
        print(
            f"| {side}x{side} | {median(s.requests_per_second for s in taken):.0f} "
            f"| {median(s.p99_ms for s in taken):.0f} ms | {cost:.2f} | {cost / 3.6:.2f} "
            f"| {median(s.memory_mb for s in taken):.0f} MB |"
        )


if __name__ == "__main__":
    main()
