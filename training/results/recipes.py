"""Recipes: which runs are of one, and what a run does otherwise than the file of its experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.config.experiment import EXPERIMENT, Experiment, load_experiment
from training.runs.checkpoint import last_step
from training.runs.folder import RunFolder
from training.runs.reports import Row, flat

# last parts of the names of fields that tell two runs of a recipe apart, and no two recipes
NO_RECIPE = {"seed", "log_every", "sample_every", "checkpoint_every", "classifiers", "vgg", "description"}


def alike(runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """Return the runs in groups, in their order; those of one have one recipe and one number of steps."""
    groups: dict[object, list[RunFolder]] = {}
    for run in runs:
        fields = _fields(run.experiment())
        groups.setdefault((last_step(run.checkpoints), *fields.items()), []).append(run)
    return list(groups.values())


def filed(experiment: Experiment, own: Path) -> Experiment:
    """Return the experiment of the file of that name; where there is none, this one."""
    file = own / f"{experiment.name}.toml"
    return load_experiment(file) if file.is_file() else experiment


def changes(experiment: Experiment, base: Experiment) -> list[str]:
    """Say each field of an experiment that is not as in another: generator.width = 0.5."""
    ours, theirs = _fields(experiment), _fields(base)
    names = dict.fromkeys([*theirs, *ours])
    return [f"{name} = {ours.get(name)}" for name in names if ours.get(name) != theirs.get(name)]


def _fields(experiment: Experiment) -> Row:
    fields = flat(EXPERIMENT.dump_python(experiment, mode="json"))
    return {name: value for name, value in fields.items() if name.split(".")[-1] not in NO_RECIPE}
