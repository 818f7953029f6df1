"""Train an encoder for a run: real images of its domains -> latents, so that an image gets its counterparts.

    python -m training.train_encoder runs/00003_digit_edge

The generator stays as it is. Writes RUN/encoder: checkpoints, from which the same command goes on, metrics, sheets of
real test images with their reconstructions, and quality.json. `export RUN --encoder-of DOMAIN` exports it.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter
from torch import Tensor
from tqdm import tqdm

from training.cli import parse, verb
from training.config import Positive
from training.data.dataset import load_split, load_training_sets
from training.engine.batches import Batches
from training.engine.machine import Machine
from training.engine.state import RunningMeans
from training.errors import ConfigError, DivergedError, RunError
from training.files import read_json, write_json
from training.losses.pixels import Images
from training.metrics.translation import RealTests, measure_encoder
from training.networks.coupled import generate
from training.networks.weights import count_weights
from training.pretrained.encoder import EncoderLoss, EncoderRecipe, LatentEncoder
from training.runs.figures import save_sheet
from training.runs.folder import (
    RESTORED_FROM,
    MetricsLog,
    RunFolder,
    Snapshot,
    list_checkpoints,
    load_average,
    load_checkpoint,
    load_discriminator,
    provenance,
    save_checkpoint,
    snapshot_after,
)
from training.runs.images import check_held_out
from training.runs.recorder import stop_requested

SHEET_ROWS = 16
RECIPE = TypeAdapter(EncoderRecipe)


@dataclass(frozen=True)
class EncoderOptions:
    """The encoder's recipe, its evaluation, and the machine."""

    recipe: EncoderRecipe = field(default_factory=EncoderRecipe)
    classifiers: Path = Path("classifiers")
    """Folder of the evaluation classifiers that `training.train_classifier` made."""
    snapshot: Snapshot = "best"
    """Whose generator: that of the least distance while the run went on, or of the last checkpoint."""
    descent_images: Positive = 500
    """Test images of each domain whose latents are found by descent too, as the ceiling of what is measured."""
    log_every: Positive = 100
    """Steps between two lines of metrics."""
    sample_every: Positive = 1000
    """Steps between two sheets."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Train the encoder of a run to its last step, and measure it on the whole test sets."""
    options = parse(EncoderOptions(), arguments)
    run = RunFolder.open(target)
    check_held_out(run, "have an encoder")
    trainer = EncoderTrainer(run, options.recipe, options.machine.fabric(), options.snapshot)  # checks the recipe
    tests = RealTests(run.experiment(), options.classifiers)  # what is missing at the end is an error at the start
    folder = EncoderFolder.open_or_create(run, options.recipe)
    parameters = count_weights(trainer.encoder.encoder)
    print(f"encoder of {run.path.name}: {options.recipe.steps} steps, {parameters:,} parameters; {folder.path}")
    try:
        train(trainer, run, folder, options)
    except KeyboardInterrupt:
        print(f"stopped; resume with: python -m training.train_encoder {target}")
        raise
    prior = run.experiment().latent_prior
    quality = measure_encoder(trainer.encoder.eval(), tests, prior, options.descent_images)
    steps = {"steps": options.recipe.steps, "generator_steps": trainer.generator_steps}
    write_json(folder.quality_file, steps | quality)
    print(f"done; export it with: python -m training.export {target} --encoder-of {next(iter(quality['domains']))}")


class EncoderTrainer:
    """The encoder of a run, its optimiser and its batches; `step` is the whole algorithm."""

    def __init__(self, run: RunFolder, recipe: EncoderRecipe, fabric: Fabric, snapshot: Snapshot = "best") -> None:
        """Initialise the encoder. Raises RunError without a checkpoint, DataError if the images cannot be read."""
        experiment = replace(run.experiment(), batch_size=recipe.batch_size, seed=recipe.seed)
        fabric.seed_everything(recipe.seed, verbose=False)
        generator, self.generator_steps = load_average(run, snapshot)
        self.encoder = LatentEncoder(generator, experiment, recipe).to(fabric.device)
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        if recipe.feature_weight and RESTORED_FROM in run.description():
            raise ConfigError(
                f"recipe.feature_weight = {recipe.feature_weight}: {run.path} was restored from an exported model, "
                "which has no discriminator: must be 0"
            )
        discriminator = load_discriminator(run).to(fabric.device) if recipe.feature_weight else None
        self._loss = EncoderLoss(self.encoder, discriminator, recipe)
        self.optimiser = torch.optim.Adam(self.encoder.encoder.parameters(), recipe.learning_rate)
        images = {name: images.images for name, images in load_training_sets(run.experiment()).items()}
        self._batches = Batches(experiment, images, {}, fabric)
        self._recipe, self._fabric = recipe, fabric
        self.steps_done, self.means = 0, RunningMeans()
        parts = {"encoder": self.encoder.encoder, "optimiser": self.optimiser, "means": self.means}
        self._parts: dict[str, Any] = parts

    def step(self) -> None:
        """Update the encoder once, on generated and on real images of every domain."""
        self._batches.begin(self.steps_done)
        share = (1 + math.cos(math.pi * self.steps_done / self._recipe.steps)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self._recipe.learning_rate * share
        with self._fabric.autocast():
            loss, parts = self._loss(self._batches.latents(), self._batches.real())
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.encoder.parameters(), 1.0)
        self.optimiser.step()
        self.means.add(loss=loss, **parts)
        self.steps_done += 1

    def state_dict(self) -> dict[str, object]:
        """Return everything that the next step depends on; the generator is the run's."""
        steps = {"steps_done": self.steps_done, "generator_steps": self.generator_steps}
        return steps | {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state exactly. Raises RunError if the generator has been trained further."""
        if state["generator_steps"] != self.generator_steps:
            raise RunError(
                f"the encoder began with the generator of step {state['generator_steps']}, and the run is at step "
                f"{self.generator_steps}: remove its folder `encoder` to begin anew"
            )
        self.steps_done = state["steps_done"]
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def train(trainer: EncoderTrainer, run: RunFolder, folder: EncoderFolder, options: EncoderOptions) -> None:
    """Train from the last checkpoint, if any, writing metrics, sheets and checkpoints.

    On a signal it saves the state after the step, and raises KeyboardInterrupt. Raises DivergedError.
    """
    recipe, experiment = options.recipe, run.experiment()
    if list_checkpoints(folder.checkpoints):
        trainer.load_state_dict(load_checkpoint(folder.checkpoints))
    steps = range(trainer.steps_done + 1, recipe.steps + 1)
    sheets = {
        domain.name: load_split(domain, "test", experiment.size).images[:: 1000 // SHEET_ROWS][:SHEET_ROWS]
        for domain in experiment.domains
        if domain.name in trainer.encoder.domains
    }
    with (
        closing(MetricsLog(folder.path, trainer.steps_done)) as log,
        stop_requested(1) as stop,
        tqdm(steps, initial=trainer.steps_done, total=recipe.steps, mininterval=1.0) as bar,
    ):
        for done in bar:
            trainer.step()
            last = done == recipe.steps
            if last or done % options.log_every == 0:
                means = trainer.means.means()
                trainer.means.reset()
                check(means, done)
                log.write(done, means)
                bar.set_postfix(means, refresh=False)
            if last or done % options.sample_every == 0:
                for name, images in sheets.items():
                    sheet = translations(trainer.encoder, name, images)
                    save_sheet(sheet, folder.samples / f"{name}_{done:08d}.png")
            if last or stop() or done % options.checkpoint_every == 0:
                save_checkpoint(folder.checkpoints, done, trainer.state_dict())
            if stop():
                raise KeyboardInterrupt


def check(means: dict[str, float], step: int) -> None:
    """Raise DivergedError if a mean loss is not finite."""
    if broken := [name for name, value in means.items() if not math.isfinite(value)]:
        raise DivergedError(f"{', '.join(broken)} became infinite or not a number before step {step} of the encoder")


def translations(encoder: LatentEncoder, domain: str, images: Tensor) -> Images:
    """Return images uint8 [N, C, H, W] of a domain and the images of all domains for their latents."""
    latents, _ = encoder.encode(domain, images)
    return {"image": images, **generate(encoder.generator, latents[:, -1])}


class EncoderFolder:
    """The folder RUN/encoder: recipe, checkpoints, metrics, sheets and quality."""

    def __init__(self, run: RunFolder) -> None:
        self.path = run.path / "encoder"
        self.checkpoints, self.samples = self.path / "checkpoints", self.path / "samples"
        self.recipe_file, self.quality_file = self.path / "recipe.json", self.path / "quality.json"

    @classmethod
    def open_or_create(cls, run: RunFolder, recipe: EncoderRecipe) -> EncoderFolder:
        """Return the folder of a run's encoder. Raises ConfigError if it was started with another recipe."""
        folder, wanted = cls(run), RECIPE.dump_python(recipe, mode="json")
        if folder.recipe_file.is_file():
            started = read_json(folder.recipe_file, dict)["recipe"]
            changed = [name for name in wanted if wanted[name] != started.get(name)]
            if changed:
                listed = "; ".join(f"recipe.{name} = {wanted[name]}, and was {started.get(name)}" for name in changed)
                raise ConfigError(f"{listed}: remove {folder.path} to begin anew")
            return folder
        for part in (folder.checkpoints, folder.samples):
            part.mkdir(parents=True, exist_ok=True)
        write_json(folder.recipe_file, {"recipe": wanted, **provenance()})
        return folder


def load_encoder(run: RunFolder) -> tuple[LatentEncoder, dict[str, Any], dict[str, Any]]:
    """Return the measured encoder of a run, the description of its training, and its quality.

    The description is the recipe, the commit and the library versions. Raises RunError if none has been trained.
    """
    folder = EncoderFolder(run)
    if not folder.quality_file.is_file():
        raise RunError(f"{run.path} has no measured encoder: python -m training.train_encoder {run.path}")
    description, quality = read_json(folder.recipe_file, dict), read_json(folder.quality_file, dict)
    generator, _ = load_average(run, snapshot_after(run, quality["generator_steps"]))
    encoder = LatentEncoder(generator, run.experiment(), RECIPE.validate_python(description["recipe"]))
    encoder.encoder.load_state_dict(load_checkpoint(folder.checkpoints)["encoder"])
    encoder.passes = quality["passes"]
    return encoder.eval(), description, quality


if __name__ == "__main__":
    main()
