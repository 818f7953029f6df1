"""Train the networks of an experiment, or go on with a run that was stopped.

python -m training.train training/experiments/digit_negative.toml --steps 2000
python -m training.train runs/00003_digit_edge
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from lightning_fabric import Fabric
from tqdm import tqdm
from tyro.conf import arg

from training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from training.classifiers import classifier_file, load_classifier
from training.command_line import parse, verb
from training.config import Experiment, load_experiment
from training.couplings import COUPLINGS
from training.datasets import load_training_sets
from training.errors import ConfigError, DivergedError
from training.figures import by_metric, save_curves
from training.machine import Machine
from training.run_folder import MetricsLog, RunFolder
from training.samples import draw, latents_of_seeds, save_film, save_sheet
from training.trainer import Couplers, Trainer

SHEET_SEEDS = range(32)


@dataclass(frozen=True)
class TrainOptions:
    """What to train, where, and on what machine."""

    experiment: Annotated[Experiment, arg(name="")]
    runs: Path = Path("runs")
    """Folder that the numbered run folder is made in."""
    dry_run: bool = False
    """Check everything, load the images, say what would be done, and stop."""
    machine: Machine = field(default_factory=Machine)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Begin a run of an experiment file, or resume a run folder."""
    resumed = RunFolder.open(target) if target.is_dir() else None
    experiment = resumed.experiment() if resumed else load_experiment(target)
    options = parse(TrainOptions(experiment), arguments)
    if resumed and options.experiment != experiment:
        raise ConfigError(f"{target} goes on as it was begun: its experiment cannot be changed")
    trainer = prepare(options.experiment, options.machine)
    if not options.dry_run:
        folder = resumed or RunFolder.create(options.runs, options.experiment)
        train(trainer, folder)
        print(f"done: {folder.path}; measure it with: python -m training.evaluate {folder.path}")


def prepare(experiment: Experiment, machine: Machine) -> Trainer:
    """Load all that an experiment needs, and say what a run of it will do. Raises ConfigError, DataError."""
    fabric = machine.fabric(experiment.precision)
    images = {name: loaded.images for name, loaded in load_training_sets(experiment).items()}
    trainer = Trainer(experiment, images, fabric, load_couplers(experiment))
    print(describe(trainer, {name: len(domain) for name, domain in images.items()}, fabric))
    return trainer


def train(trainer: Trainer, folder: RunFolder) -> None:
    """Begin a run, or go on where its last checkpoint is. Raises DivergedError."""
    if list_checkpoints(folder.checkpoints):  # a run killed before its first one begins anew
        trainer.load_state_dict(load_checkpoint(folder.checkpoints))
    with closing(folder.open_log(trainer.steps_done)) as log:
        run(trainer, folder, log)
    sum_up(folder)


def load_couplers(experiment: Experiment) -> Couplers:
    """Read the classifiers that the couplings ask. Raises RunError where one has not been trained."""
    return {
        coupling.name: {
            domain.name: load_classifier(classifier_file(Path(coupling.classifiers), domain))
            for domain in experiment.domains
        }
        for coupling in experiment.couplings
        if COUPLINGS[coupling.name].asks == "classifiers"
    }


def describe(trainer: Trainer, counts: dict[str, int], fabric: Fabric) -> str:
    """Say in a few lines what a run will do."""
    experiment = trainer.experiment
    sizes = {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in trainer.networks.items()
    }
    return "\n".join(
        [
            f"{experiment.name}: {experiment.steps} steps of {experiment.batch_size} images a domain "
            f"on {fabric.device}, precision {experiment.precision}",
            *(f"  {name}: {count} images" for name, count in counts.items()),
            *(f"  {name}: {size:,} parameters" for name, size in sizes.items()),
        ]
    )


def run(trainer: Trainer, folder: RunFolder, log: MetricsLog) -> None:
    """Train to the last step, writing metrics, samples and checkpoints. Raises DivergedError."""
    experiment = trainer.experiment
    steps = range(trainer.steps_done, experiment.steps)
    with tqdm(steps, initial=trainer.steps_done, total=experiment.steps, unit="step", mininterval=1.0) as bar:
        for done in (step + 1 for step in bar):
            trainer.step()
            last = done == experiment.steps
            if last or done % experiment.log_every == 0:
                bar.set_postfix(report(trainer, folder, log), refresh=False)
            if last or done % experiment.sample_every == 0:
                latents = latents_of_seeds(experiment.latent_prior, SHEET_SEEDS)
                save_sheet(draw(trainer.average, latents), folder.samples / f"step_{done:08d}.png")
            if last or done % experiment.checkpoint_every == 0:
                check(trainer, folder)
                save_checkpoint(folder.checkpoints, done, trainer.state_dict())


def report(trainer: Trainer, folder: RunFolder, log: MetricsLog) -> dict[str, float]:
    """Write the mean losses since the last report, and return them."""
    check(trainer, folder)
    means = trainer.means.means()
    trainer.means.reset()
    log.write(trainer.steps_done, means)
    return means


def check(trainer: Trainer, folder: RunFolder) -> None:
    """Raise DivergedError if a loss or a weight is no longer finite, before anything is built on it."""
    if broken := trainer.not_finite():
        raise DivergedError(
            f"{', '.join(broken)} became infinite or not a number within the {trainer.experiment.log_every} "
            f"steps before step {trainer.steps_done}; the last good checkpoints are in {folder.checkpoints}; "
            "a lower learning rate or a gradient penalty may help"
        )


def sum_up(folder: RunFolder) -> None:
    """Draw the metrics of a run that has ended, and make a film of its sheets."""
    save_curves(by_metric({folder.path.name: folder.curves()}), "step", folder.losses_file)
    save_film(sorted(folder.samples.glob("step_*.png")), folder.film_file)


if __name__ == "__main__":
    main()
