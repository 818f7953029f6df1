"""Recorder of a run: metrics, sheets, checkpoints, and at the end a plot and a film."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning_fabric import Fabric
from torch import Tensor

from training.engine.machine import describe_machine
from training.engine.trainer import Trainer
from training.errors import DivergedError
from training.losses.pixels import Images
from training.networks.coupled import generate, latents_of_seeds
from training.runs.figures import by_metric, save_curves, save_film, save_sheet
from training.runs.folder import RunFolder, note_machine, save_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Recorder:
    """Writes the state of a trainer into the folder of its run, in the leading process.

    All processes of a run call every method, and all of them stop if a loss diverges.
    """

    def __init__(self, folder: RunFolder, trainer: Trainer) -> None:
        self._folder, self._trainer = folder, trainer
        self._leads = trainer.processes.leads
        self._log = folder.open_log(trainer.state.steps_done) if self._leads else None
        if self._leads:
            processes = trainer.processes
            note_machine(folder, describe_machine(processes.device, processes.count, processes.precision))

    def write_metrics(self) -> dict[str, float]:
        """Write the mean losses since the last time, and return them. Raises DivergedError."""
        self.check()
        means = self._trainer.state.means.means()
        self._trainer.state.means.reset()
        if self._log:
            self._log.write(self._trainer.state.steps_done, means)
        return means

    def save_sheet(self) -> None:
        """Write a sheet of pairs of the EMA generator, of the same seeds every time."""
        if self._leads:
            experiment = self._trainer.experiment
            latents = latents_of_seeds(experiment.latent_prior, range(experiment.sample_count))
            file = self._folder.samples / f"step_{self._trainer.state.steps_done:08d}.png"
            save_sheet(generate(self._trainer.state.ema_generator, latents), file)

    def save_checkpoint(self) -> None:
        """Write a checkpoint. Raises DivergedError."""
        self.check()
        if self._leads:
            save_checkpoint(self._folder.checkpoints, self._trainer.state.steps_done, self._trainer.state.state_dict())

    def check(self) -> None:
        """Raise DivergedError if a loss or a weight is not finite."""
        trainer = self._trainer
        if broken := trainer.state.not_finite():
            raise DivergedError(
                f"{', '.join(broken)} became infinite or not a number within the "
                f"{trainer.experiment.log_every} steps before step {trainer.state.steps_done}; the last good "
                f"checkpoints are in {self._folder.checkpoints}; a lower learning rate or a gradient penalty "
                "may help"
            )

    def sum_up(self) -> None:
        """Plot the metrics of a run that has ended, and make a film of its sheets."""
        if self._leads:
            curves = {self._folder.path.name: self._folder.curves()}
            save_curves(by_metric(curves), "step", self._folder.losses_file)
            save_film(sorted(self._folder.samples.glob("step_*.png")), self._folder.film_file)

    def close(self) -> None:
        """Flush and close what is open."""
        if self._log:
            self._log.close()


@contextmanager
def stop_requested(processes: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM has come. A second signal stops at once.

    Several processes stop at once, as they may be in different steps.
    """
    signals: list[int] = []
    if processes > 1:
        yield lambda: False
        return

    def note(number: int, _: FrameType | None) -> None:
        signals.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(signals)
    finally:
        restore()


def describe(trainer: Trainer, images: Images, fabric: Fabric) -> str:
    """Return the summary that is printed before training."""
    experiment = trainer.experiment
    sizes = {
        name: sum(weight.numel() for weight in network.parameters()) for name, network in trainer.state.networks.items()
    }
    return "\n".join(
        [
            f"{experiment.name}: {experiment.steps} steps of {experiment.batch_size} images a domain "
            f"on {fabric.device}, precision {trainer.processes.precision}",
            *(f"  {name}: {len(domain)} images, {_shape(domain)}" for name, domain in images.items()),
            *(f"  {name}: {size:,} parameters" for name, size in sizes.items()),
        ]
    )


def _shape(images: Tensor) -> str:
    """Return the size of images, and grey or RGB."""
    _, channels, height, width = images.shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"
