"""Train an adaptation once for each seed, and measure its classifiers on real test images.

    python -m training.adapt training/recipes/mnist_to_usps.toml --seeds 0 1 2

Instead of a file, a run folder gives its experiment and its seed. A run is known by its experiment: what was
trained is not trained again, and one that was stopped goes on. What is measured is the classifier of the last
step, on the whole test split of each domain that has labels, so that nothing is chosen by it. Writes
accuracy.json into each run folder, and says the mean over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from tyro.conf import arg

from training.cli import parse, verb
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import ImageSet
from training.engine.machine import Machine
from training.errors import ConfigError
from training.files import write_json
from training.metrics.quality import load_real
from training.pretrained.classifier import accuracy
from training.runs.figures import spread
from training.runs.folder import RunFolder, find_run, load_adapted
from training.train import complete

Accuracies = dict[str, float]  # by domain


@dataclass(frozen=True)
class AdaptOptions:
    """Experiment, seeds, runs folder and machine of an adaptation."""

    experiment: Annotated[Experiment, arg(name="")]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of the runs; each takes the place of the experiment's."""
    runs: Path = Path("runs")
    """Folder of the run folders."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Adapt by a recipe, or by the experiment of a run folder."""
    run = RunFolder.open(target) if target.is_dir() else None
    experiment = run.experiment() if run else load_experiment(target)
    defaults = AdaptOptions(experiment, (experiment.seed,), target.parent) if run else AdaptOptions(experiment)
    options = parse(defaults, arguments)
    if not options.experiment.lessons:
        raise ConfigError(f"{target}: lessons = (): an adaptation needs auxiliary losses and a labelled domain")
    device = options.machine.device("an adaptation")
    real = {name: one for name, one in load_real(options.experiment).items() if one.labels is not None}
    experiments = [replace(options.experiment, seed=seed) for seed in options.seeds]
    print(describe([adapt(one, real, options, device, run) for one in experiments]))


def adapt(
    experiment: Experiment,
    real: dict[str, ImageSet],
    options: AdaptOptions,
    device: torch.device,
    named: RunFolder | None,
) -> Accuracies:
    """Complete one run, measure it, and return the accuracy in each domain.

    It is the named run if it is of this experiment, else another run of it, or a new one.
    """
    run = named if named and named.experiment() == experiment else find_run(options.runs, experiment)
    run = complete(run, experiment, options.runs, options.machine)
    classifiers, steps = load_adapted(run)
    accuracies = {name: float(accuracy(classifiers[name].to(device), test_set)) for name, test_set in real.items()}
    images = {name: len(test_set.images) for name, test_set in real.items()}
    class_names = next((names for test_set in real.values() if (names := test_set.class_names)), ())
    measured = {"steps": steps, "images": images, "accuracy": accuracies, "class_names": class_names}
    write_json(run.accuracy_file, measured)
    print(f"{run.path}: " + ", ".join(f"{name} {share:.2%}" for name, share in accuracies.items()))
    return accuracies


def describe(runs: Sequence[Accuracies]) -> str:
    """Return the mean over the runs and, if there are several, their standard deviation."""
    lines = {name: spread([run[name] for run in runs]) for name in runs[0]}
    return "\n".join(f"{name}: {shares} of real test images classified right" for name, shares in lines.items())


if __name__ == "__main__":
    main()
