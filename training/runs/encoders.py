"""The folder of a run's encoder: RUN/encoder, with its recipe, checkpoints, metrics, sheets and quality."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import ConfigError, RunError
from training.files import read_json, write_json
from training.pretrained.encoder import EncoderRecipe, LatentEncoder
from training.runs.folder import (
    RunFolder,
    list_checkpoints,
    load_average,
    load_checkpoint,
    open_log,
    provenance,
    save_checkpoint,
)
from training.runs.metrics_log import MetricsLog


class EncoderFolder:
    """Reads and writes the files of one run's encoder."""

    def __init__(self, path: Path) -> None:
        self.path, self._checkpoints, self._samples = path, path / "checkpoints", path / "samples"
        self._recipe_file, self._quality_file = path / "recipe.json", path / "quality.json"

    @classmethod
    def open_or_create(cls, run: RunFolder, recipe: EncoderRecipe) -> EncoderFolder:
        """Return the folder of a run's encoder. Raises ConfigError if it was begun with another recipe."""
        folder = cls(run.path / "encoder")
        wanted = asdict(recipe)
        if folder._recipe_file.is_file():
            begun = folder.description()["recipe"]
            changed = [name for name in wanted if wanted[name] != begun.get(name)]
            if changed:
                listed = "; ".join(f"recipe.{name} = {wanted[name]}, and was {begun.get(name)}" for name in changed)
                raise ConfigError(f"{listed}: remove {folder.path} to begin anew")
            return folder
        for part in (folder._checkpoints, folder._samples):
            part.mkdir(parents=True, exist_ok=True)
        write_json(folder._recipe_file, {"recipe": wanted, **provenance()})
        return folder

    @classmethod
    def open(cls, run: RunFolder) -> EncoderFolder:
        """Return the folder of a run's encoder. Raises RunError if none has been trained."""
        folder = cls(run.path / "encoder")
        if not folder._quality_file.is_file():
            raise RunError(f"{run.path} has no measured encoder: python -m training.train_encoder {run.path}")
        return folder

    def description(self) -> dict[str, Any]:
        """Return the recipe, the commit and the library versions."""
        description: dict[str, Any] = read_json(self._recipe_file)
        return description

    def has_checkpoint(self) -> bool:
        """Return whether there is one to go on from."""
        return bool(list_checkpoints(self._checkpoints))

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step`."""
        save_checkpoint(self._checkpoints, step, state)

    def load_checkpoint(self) -> dict[str, Any]:
        """Read the last checkpoint. Raises RunError."""
        return load_checkpoint(self._checkpoints)

    def open_log(self, step: int) -> MetricsLog:
        """Open the metrics for writing after `step`."""
        return open_log(self.path / "metrics.jsonl", self.path / "events", step)

    def sample_file(self, domain: str, step: int) -> Path:
        """Name the sheet of a domain's test images after a step."""
        return self._samples / f"{domain}_{step:08d}.png"

    def quality(self) -> dict[str, Any]:
        """Return what was measured."""
        quality: dict[str, Any] = read_json(self._quality_file)
        return quality

    def write_quality(self, quality: dict[str, Any]) -> None:
        """Keep what was measured."""
        write_json(self._quality_file, quality)


def load_encoder(run: RunFolder) -> tuple[LatentEncoder, EncoderFolder]:
    """Return the measured encoder of a run, with the passes that its quality says. Raises RunError."""
    folder = EncoderFolder.open(run)
    description, state, quality = folder.description(), folder.load_checkpoint(), folder.quality()
    encoder = LatentEncoder(load_average(run)[0], run.experiment(), EncoderRecipe(**description["recipe"]))
    encoder.encoder.load_state_dict(state["encoder"])
    encoder.passes = quality["passes"]
    return encoder.eval(), folder
