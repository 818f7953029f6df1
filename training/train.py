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
from training.data.dataset import ImageSet, load_held_out, load_training_sets
from training.engine.machine import Machine, describe_machine
from training.engine.trainer import Trainer, check_labels
from training.errors import ConfigError
from training.metrics.label_free import choose_measure
from training.pretrained.classifier import prune
from training.pretrained.features import load_loss_networks
from training.runs.folder import (
    RunFolder,
    describe_change,
    last_step,
    list_checkpoints,
    load_checkpoint,
    locked,
    machines,
)
from training.runs.images import check_images, write_images
from training.runs.recorder import Recorder, Watch, stop_requested
from training.runs.summary import describe, describe_cost, describe_networks, measure_cost


@dataclass(frozen=True)
class TrainOptions:
    """Experiment, runs folder and machine of a training."""

    experiment: Annotated[Experiment, arg(name="")]
    runs: Path = Path("runs")
    """Folder that the numbered run folder is made in."""
    dry_run: bool = False
    """Check everything, print layers, parameters and hours on this machine, timed on a few steps, and stop."""
    classifiers: Path = Path("classifiers")
    """Folder of the evaluation classifiers, by whose features snapshots are measured if they are there."""
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
    prepared = prepare(options.experiment, options.machine, resumed, options.classifiers)
    trainer = prepared.trainer
    if choices.made:
        print_once(trainer, "\n".join(["chosen, as the recipe does not say:", *choices.made]))
    if options.dry_run:
        print_once(trainer, describe_networks(trainer))
        print_once(trainer, describe_cost(measure_cost(trainer, prepared.watch), trainer.experiment))
    else:
        folder = resumed or begin(prepared, options.runs)
        print_once(trainer, f"run folder: {folder.path}")
        try:
            train(trainer, folder, prepared.watch)
        except KeyboardInterrupt:
            print_once(trainer, f"stopped; resume with: python -m training.train {folder.path}")
            raise
        print_once(trainer, f"done: {folder.path}; measure it with: python -m training.evaluate {folder.path}")
    trainer.processes.leave()


@dataclass(frozen=True)
class Prepared:
    """A trainer, its loaded images, and what it is compared with."""

    trainer: Trainer
    sets: dict[str, ImageSet]
    """Training images of each domain."""
    watch: Watch


def prepare(
    experiment: Experiment, machine: Machine, run: RunFolder | None = None, classifiers: Path = TrainOptions.classifiers
) -> Prepared:
    """Load all that an experiment needs, and print a summary.

    Snapshots are measured by the evaluation classifiers in that folder, if they are there, else without labels.

    A resumed run keeps its device, threads and precision if they are available; a warning is printed if it
    cannot go on bit for bit. Raises ConfigError, DataError, and RunError if the images of the run have changed.
    """
    known = machines(run) if run else []
    fabric = (machine.resume(known[-1]) if known else machine).fabric()
    held_out = load_held_out(experiment)
    sets = prune(experiment, load_training_sets(experiment))
    labels = check_labels(experiment, {name: kept.labels for name, kept in sets.items()})
    images = {name: kept.images for name, kept in sets.items()}
    moved = check_images(run, sets) if run else ""
    trainer = Trainer(experiment, images, fabric, load_loss_networks(experiment), labels)
    measure, reason = choose_measure(experiment, sets, classifiers, trainer.processes.device)
    print_once(trainer, describe(trainer, images))
    print_once(trainer, f"snapshots: {measure.name}" if measure else f"snapshots are not measured: {reason}")
    if run and last_step(run.checkpoints):
        processes = trainer.processes
        facts = describe_machine(processes.device, processes.count, processes.precision)
        changes = filter(None, [describe_change(run, facts, torch.__version__), moved])
        if reason := "; ".join(changes):
            print_once(trainer, f"warning: this run does not go on bit for bit: {reason}")
    return Prepared(trainer, sets, Watch(held_out, measure))


def begin(prepared: Prepared, runs: Path) -> RunFolder:
    """Create the folder of a new run, one for all processes."""
    trainer, path = prepared.trainer, Path()
    if trainer.processes.leads:
        folder = RunFolder.create(runs, trainer.experiment)
        write_images(folder, prepared.sets)
        path = folder.path
    return RunFolder(trainer.processes.broadcast(path))


def complete(
    run: RunFolder | None,
    experiment: Experiment,
    runs: Path,
    machine: Machine,
    classifiers: Path = TrainOptions.classifiers,
) -> RunFolder:
    """Finish an experiment's run, or train a new one, and return it.

    Raises what `prepare` and `train` raise.
    """
    if run is None or last_step(run.checkpoints) < experiment.steps:
        prepared = prepare(experiment, machine, run, classifiers)
        run = run or begin(prepared, runs)
        train(prepared.trainer, run, prepared.watch)
    return run


def train(trainer: Trainer, folder: RunFolder, watch: Watch | None = None) -> None:
    """Train a run from its last checkpoint, if any.

    Raises RunError if it is being trained already, DivergedError.
    """
    with locked(folder, trainer.processes):
        if list_checkpoints(folder.checkpoints):  # a run killed before its first one starts over
            trainer.state.load_state_dict(load_checkpoint(folder.checkpoints))
        with closing(Recorder(folder, trainer, watch)) as record:
            run(trainer, record)
        record.sum_up()


def print_once(trainer: Trainer, text: str) -> None:
    """Print in the leading process alone."""
    if trainer.processes.leads:
        print(text)


def run(trainer: Trainer, record: Recorder) -> None:
    """Train to the last step, writing metrics, samples and checkpoints, and measuring snapshots.

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
            if last or done % experiment.sample_every == 0 or record.preview_is_due():
                record.save_sheet()
            if last or done % experiment.measure_every == 0:
                record.measure()
            if last or stop() or done % experiment.checkpoint_every == 0:
                record.save_checkpoint()
            if stop():
                raise KeyboardInterrupt


if __name__ == "__main__":
    main()
