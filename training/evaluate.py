"""Measure the generated pairs of a run, and write the result into its folder.

    python -m training.evaluate runs/00003_digit_edge

Latents are those of index 0 of seeds 0, 1, 2, ...; real images are the whole test split. Domains without an evaluation
classifier are measured without labels, by a public network, and nearest_DOMAIN.png shows generated images beside the
nearest training images.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from training.cli import parse, verb
from training.engine.machine import Machine
from training.files import check_writable, write_json
from training.losses.pixels import Images
from training.metrics.label_free import measure_without_labels
from training.metrics.quality import measure
from training.networks.coupled import generate, latents_of_seeds
from training.runs.figures import save_sheet
from training.runs.folder import RunFolder, Snapshot, chosen_by, load_average
from training.runs.images import check_held_out


@dataclass(frozen=True)
class MeasureOptions:
    """How much to measure, and with which classifiers."""

    pairs: Annotated[int, Field(ge=2)] = 10_000
    """How many pairs are generated, one of each seed from 0."""
    classifiers: Path = Path("classifiers")
    """Folder of the classifiers that `training.train_classifier` made."""
    images: Annotated[int, Field(ge=2)] = 1000
    """How many generated, test and training images are compared without labels, where there are as many."""
    snapshot: Snapshot = "best"
    """The snapshot of the least distance while the run went on, or the last checkpoint."""


@dataclass(frozen=True)
class EvaluateOptions(MeasureOptions):
    """The same, and the machine."""

    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Measure the averaged generator of the best snapshot, or of the last checkpoint."""
    options = parse(EvaluateOptions(), arguments)
    run, device = RunFolder.open(target), options.machine.device("measuring")
    print(json.dumps(evaluate(run, options, device), indent=2))


def evaluate(run: RunFolder, options: MeasureOptions, device: torch.device) -> dict[str, Any]:
    """Measure a run's snapshot, keep the result and a sheet in its folder, and return the result.

    The last checkpoint is the best one of a run whose snapshots were not measured. Raises RunError, also if the images
    have changed of which some are held out.
    """
    check_writable(run.path)
    check_held_out(run, "be measured")
    experiment = run.experiment()
    generator, steps = load_average(run, options.snapshot)
    pairs = generate(generator.to(device), latents_of_seeds(experiment.latent_prior, range(options.pairs)))
    quality = {"steps": steps, **measure(experiment, pairs, options.classifiers, device)}
    closest: dict[str, Images] = {}
    unclassified = {name: pairs[name] for name in quality.get("without_classes", ())}
    if unclassified:
        quality["without_labels"], closest = measure_without_labels(experiment, unclassified, options.images, device)
    if options.snapshot == "best" and (choice := chosen_by(run)):
        quality["chosen_by"] = choice
    write_json(run.quality_file, quality)
    for name, images in closest.items():
        save_sheet(images, run.path / f"nearest_{name}.png", 4, 2)
    save_sheet({name: images[:128] for name, images in pairs.items()}, run.path / "sheet.png", 8, 2)
    return quality


if __name__ == "__main__":
    main()
