"""Train the networks of a recipe, or resume a run.

python -m training.train training/recipes/digit_negative.toml --steps 2000
python -m training.train runs/00003_digit_edge
torchrun --nproc-per-node 2 -m training.train training/recipes/digit_negative.toml
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from tqdm import tqdm
from tyro.conf import arg

from training.cli import parse, verb
from training.config.experiment import Experiment, load_experiment
from training.data.choices import Choices
from training.data.dataset import ImageSet, check_test_splits, load_training_sets
from training.engine.loss_inputs import check_labels
from training.engine.machine import Machine, describe_machine
from training.engine.trainer import Trainer
from training.errors import ConfigError
from training.pretrained.classifier import prune
from training.pretrained.loss_networks import load_loss_networks
from training.runs.folder import (
    RunFolder,
    check_images,
    describe_change,
    last_step,
    list_checkpoints,
    load_checkpoint,
    locked,
    machines,
    write_images,
)
from training.runs.recorder import Recorder, describe, stop_requested


@dataclass(frozen=True)
class TrainOptions:
    """Experiment, runs folder and machine of a training."""

    experiment: Annotated[Experiment, arg(name="")]
    runs: Path = Path("runs")
    """Folder that the numbered run folder is made in."""
    dry_run: bool = False
    """Check everything, load the images, print a summary, and stop."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Train a recipe, or resume a run folder."""
    resumed = RunFolder.open(target) if target.is_dir() else None
    choices = Choices(Machine.from_environment().has_gpu())
    experiment = resumed.experiment() if resumed else load_experiment(target, choices)
    options = parse(TrainOptions(experiment), arguments)
    if resumed and options.experiment != experiment:
        raise ConfigError(f"{target} is a run, whose experiment cannot be changed: train a recipe instead")
    prepared = prepare(options.experiment, options.machine, resumed)
    trainer = prepared.trainer
    print_once(trainer, "\n".join(["chosen, as the recipe does not say:", *choices.made]) if choices.made else "")
    if not options.dry_run:
        folder = resumed or begin(prepared, options.runs)
        print_once(trainer, f"run folder: {folder.path}")
        try:
            train(trainer, folder)
        except KeyboardInterrupt:
            print_once(trainer, f"stopped; resume with: python -m training.train {folder.path}")
            raise
        print_once(trainer, f"done: {folder.path}; measure it with: python -m training.evaluate {folder.path}")
    trainer.processes.leave()


@dataclass(frozen=True)
class Prepared:
    """A trainer and its loaded images."""

    trainer: Trainer
    sets: dict[str, ImageSet]
    """Training images of each domain."""


def prepare(experiment: Experiment, machine: Machine, run: RunFolder | None = None) -> Prepared:
    """Load all that an experiment needs, and print a summary.

    A resumed run keeps its device, threads and precision if they are available; a warning is printed if it
    cannot go on bit for bit. Raises ConfigError, DataError, and RunError if the images of the run have changed.
    """
    known = machines(run) if run else []
    fabric = (machine.resume(known[-1]) if known else machine).fabric()
    check_test_splits(experiment)
    sets = prune(experiment, load_training_sets(experiment))
    labels = check_labels(experiment, {name: kept.labels for name, kept in sets.items()})
    images = {name: kept.images for name, kept in sets.items()}
    moved = check_images(run, sets) if run else ""
    trainer = Trainer(experiment, images, fabric, load_loss_networks(experiment), labels)
    print_once(trainer, describe(trainer, images, fabric))
    if run and last_step(run.checkpoints):
        processes = trainer.processes
        facts = describe_machine(processes.device, processes.count, processes.precision)
        changes = filter(None, [describe_change(run, facts, torch.__version__), moved])
        if reason := "; ".join(changes):
            print_once(trainer, f"warning: this run does not go on bit for bit: {reason}")
    return Prepared(trainer, sets)


def begin(prepared: Prepared, runs: Path) -> RunFolder:
    """Create the folder of a new run, one for all processes."""
    trainer, path = prepared.trainer, Path()
    if trainer.processes.leads:
        folder = RunFolder.create(runs, trainer.experiment)
        write_images(folder, prepared.sets)
        path = folder.path
    return RunFolder(trainer.processes.broadcast(path))


def complete(run: RunFolder | None, experiment: Experiment, runs: Path, machine: Machine) -> RunFolder:
    """Finish an experiment's run, or train a new one, and return it.

    Raises what `prepare` and `train` raise.
    """
    if run is None or last_step(run.checkpoints) < experiment.steps:
        prepared = prepare(experiment, machine, run)
        run = run or begin(prepared, runs)
        train(prepared.trainer, run)
    return run


def train(trainer: Trainer, folder: RunFolder) -> None:
    """Train a run from its last checkpoint, if any.

    Raises RunError if it is being trained already, DivergedError.
    """
    with locked(folder, trainer.processes):
        if list_checkpoints(folder.checkpoints):  # a run killed before its first one starts over
            trainer.state.load_state_dict(load_checkpoint(folder.checkpoints))
        with closing(Recorder(folder, trainer)) as record:
            run(trainer, record)
        record.sum_up()


def print_once(trainer: Trainer, text: str) -> None:
    """Print in the leading process alone."""
    if trainer.processes.leads:
        print(text)


def run(trainer: Trainer, record: Recorder) -> None:
    """Train to the last step, writing metrics, samples and checkpoints.

    On a signal it saves the state after the step, and raises KeyboardInterrupt. Raises DivergedError.
    """
    experiment = trainer.experiment
    steps = range(trainer.state.steps_done, experiment.steps)
    with (
        stop_requested(trainer.processes.count) as stop,
        tqdm(
            steps,
            initial=trainer.state.steps_done,
            total=experiment.steps,
            unit="step",
            mininterval=1.0,
            disable=not trainer.processes.leads,
        ) as bar,
    ):
        for done in (step + 1 for step in bar):
            trainer.step()
            last = done == experiment.steps
            if last or done % experiment.log_every == 0:
                bar.set_postfix(record.write_metrics(), refresh=False)
            if last or done % experiment.sample_every == 0:
                record.save_sheet()
            if last or stop() or done % experiment.checkpoint_every == 0:
                record.save_checkpoint()
            if stop():
                raise KeyboardInterrupt


if __name__ == "__main__":
    main()
