"""From a folder of images to pairs over HTTP, by the verbs alone and without a line of code."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest
import torch

from service.app import create_app
from service.latents import draw_latent
from service.settings import Settings
from training import evaluate, export, train, train_classifier
from training.config.experiment import load_experiment
from training.onnx_export import GeneratorGraph
from training.runs.folder import RunFolder, load_average

RunVerb = Callable[..., None]
EXPERIMENT = """
name = "small_digits"
data_license = "made for tests"
latent_dim = 16
batch_size = 8
steps = 6

[[domains]]
name = "digit"
source = "someone/digits"
description = "digits of eight pixels, enlarged"

[[domains]]
name = "negative"
source = "someone/digits"
transform = "negative"

[[domains]]
name = "colour"
source = "someone/digits"
channels = 3

[generator]
width = 0.01
initialisation = "he"

[discriminator]
width = 0.05
"""


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch) -> RunVerb:
    """Return what runs a verb's console entry with the arguments of a command line."""

    def run(verb: ModuleType, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", [verb.__name__, *map(str, arguments)])
        verb.main()

    return run


def make_model(run_verb: RunVerb, folder: Path) -> RunFolder:
    """Train, measure and export the experiment in a folder, and return its run."""
    file = folder / "small_digits.toml"
    file.write_text(EXPERIMENT)
    evaluation_classifiers = ["--classifiers", folder / "classifiers"]
    run_verb(train_classifier, file, *evaluation_classifiers, "--epochs", 1)
    run_verb(train, file, "--runs", folder / "runs", "--machine.threads", 1)
    run_verb(evaluate, folder / "runs" / "00000_small_digits", *evaluation_classifiers, "--pairs", 10)
    run_verb(export, folder / "runs" / "00000_small_digits", "--models", folder / "models")
    return RunFolder.open(folder / "runs" / "00000_small_digits")


def drawn_by_torch(run: RunFolder, seeds: list[int]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Draw the latents of seeds with the run's averaged generator: {domain: uint8 [B, H, W, C]}."""
    experiment = run.experiment()
    latents = np.stack([draw_latent(experiment.latent_prior, seed) for seed in seeds])
    with torch.inference_mode():
        images = GeneratorGraph(load_average(run)[0])(torch.from_numpy(latents))
    return {d.name: batch.numpy() for d, batch in zip(experiment.domains, images, strict=True)}


@pytest.mark.anyio
@pytest.mark.timeout(300)  # every verb at work
async def test_a_folder_of_images_becomes_pairs_over_http(
    run_verb: RunVerb, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment file alone gives a model that the service finds, describes and draws as torch does."""
    monkeypatch.setenv("COGAN_DATA", str(digits_folder.parent))
    run = make_model(run_verb, tmp_path)
    app = create_app(Settings(models_dir=tmp_path / "models", threads=1, processes=1))
    seeds = [0, 7, 2**53 - 1]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        described = (await client.get("/models/small_digits")).raise_for_status().json()
        answer = await client.post("/generate", json={"seeds": seeds, "format": "npz"})
    generated = np.load(io.BytesIO(answer.raise_for_status().content))
    expected = drawn_by_torch(run, seeds)
    assert set(generated) == {"digit", "negative", "colour", "latent"}
    for name, images in expected.items():
        assert generated[name].shape == images.shape == (3, 28, 28, 3 if name == "colour" else 1)
        assert np.abs(generated[name].astype(int) - images).max() <= 1
        assert images.std() > 5  # even a hardly trained network draws more than grey
    told = str(described)
    assert load_experiment(tmp_path / "small_digits.toml").domains[0].description in told
    assert "class_agreement" in told
