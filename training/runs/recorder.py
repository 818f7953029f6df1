"""Recorder of a run: metrics, sheets, checkpoints, measured snapshots, at the end a plot and a film."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from training.engine.batches import HeldOutImages
from training.engine.machine import describe_machine
from training.engine.trainer import Trainer
from training.errors import DivergedError
from training.losses.pixels import Images
from training.metrics.label_free import SnapshotMeasure
from training.networks.coupled import generate, latents_of_seeds
from training.runs.figures import by_metric, save_curves, save_film, save_sheet
from training.runs.folder import (
    MetricsLog,
    RunFolder,
    chosen_by,
    list_samples,
    note_machine,
    save_best,
    save_checkpoint,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST_PREVIEW = 60.0  # seconds; each further one comes after twice the time


@dataclass(frozen=True)
class Watch:
    """Images and measure that a run is compared with while it trains."""

    held_out: Images = field(default_factory=dict)
    """Test images uint8 [N, C, H, W] by domain, on which the discriminator's accuracy shows overfitting."""
    measure: SnapshotMeasure | None = None
    """Distance of snapshots; None if they are not measured."""


class Recorder:
    """Writes the state of a trainer into the folder of its run, in the leading process.

    All processes of a run call every method, and all of them stop if a loss diverges.
    """

    def __init__(self, folder: RunFolder, trainer: Trainer, watch: Watch | None = None) -> None:
        self._folder, self._trainer = folder, trainer
        watch, processes = watch or Watch(), trainer.processes
        self._held_out = HeldOutImages(trainer.experiment, watch.held_out, trainer.state, processes)
        self._measure = watch.measure if processes.leads else None
        known = chosen_by(folder) if self._measure else {}
        same = self._measure and known.get("measure") == self._measure.name
        self._best = float(known["distance"]) if same else math.inf  # the least so far, by this measure
        self._begun, self._next_preview = time.monotonic(), FIRST_PREVIEW
        self._log = MetricsLog(folder.path, trainer.state.steps_done) if processes.leads else None
        if processes.leads:
            note_machine(folder, describe_machine(processes.device, processes.count, processes.precision))

    def write_metrics(self) -> dict[str, float]:
        """Write the mean losses since the last time, and return them. Raises DivergedError.

        With them come the discriminator's statistics on real, generated and held-out images of each domain.
        """
        self.check()
        state = self._trainer.state
        means = state.means.means()
        values = means | state.logits.means() | self._held_out.accuracy()
        state.means.reset()
        state.logits.reset()
        if self._log:
            self._log.write(state.steps_done, values)
        return means

    def preview_is_due(self) -> bool:
        """Return whether a sheet is due: after a minute, then after 2, 4, 8 and so on."""
        if due := time.monotonic() - self._begun >= self._next_preview:
            self._next_preview *= 2
        return due

    def save_sheet(self) -> None:
        """Write a sheet of pairs of the EMA generator, of the same seeds every time."""
        if self._log:
            steps = self._trainer.state.steps_done
            sheet = save_sheet(preview(self._trainer), self._folder.samples / f"step_{steps:08d}.png")
            self._log.write_picture(steps, sheet)

    def measure(self) -> str:
        """Measure the EMA generator, keep it if it is the best so far, and return the distance in words.

        No random numbers are used. The words are empty where snapshots are not measured.
        """
        if not (self._log and self._measure):
            return ""
        state = self._trainer.state
        values = measure_snapshot(self._trainer, self._measure)
        distance, before = values[self._measure.name], self._best
        if distance < before:
            self._best = distance
            average = state.ema_generator.state_dict()
            save_best(self._folder, state.steps_done, average, self._measure.name, distance)
        self._log.write(state.steps_done, values)
        found = "the best" if distance < before else f"the best was {before:.4g}"
        return f"step {state.steps_done:,}: {self._measure.name} {distance:.4g}, {found}"

    def save_checkpoint(self) -> None:
        """Write a checkpoint. Raises DivergedError."""
        self.check()
        if self._log:
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
        if self._log:
            folder, curves = self._folder.path, self._folder.curves()
            if curves:
                save_curves(by_metric({folder.name: curves}), "step", folder / "losses.png")
            save_film(list_samples(self._folder), folder / "training.gif")

    def close(self) -> None:
        """Flush and close the log."""
        if self._log:
            self._log.close()


def preview(trainer: Trainer) -> Images:
    """Generate the pairs of a sheet of samples."""
    experiment = trainer.experiment
    latents = latents_of_seeds(experiment.latent_prior, range(experiment.sample_count))
    return generate(trainer.state.ema_generator, latents)


def measure_snapshot(trainer: Trainer, measure: SnapshotMeasure) -> dict[str, float]:
    """Return the distances of the EMA generator: their mean, and that of each domain."""
    latents = latents_of_seeds(trainer.experiment.latent_prior, measure.seeds)
    return measure(generate(trainer.state.ema_generator, latents))


@contextmanager
def stop_requested(processes: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM has come. A second signal stops at once.

    Several processes stop at once, as they may be in different steps.
    """
    signals: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        signals.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in SIGNALS if processes == 1}
    try:
        yield lambda: bool(signals)
    finally:
        restore()
