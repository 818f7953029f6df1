"""Images are fitted as in training, and an encoder that training has trained translates them over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from service.app import create_app
from service.generation.decoding import Fitting, read_image
from service.generation.decoding import fit as fit_in_service
from service.metadata import Domain
from service.settings import Settings
from tests.damaged import SAVED, picture, saved
from training import train
from training.config.data import DomainConfig
from training.data.preprocess import decode
from training.data.preprocess import fit as fit_in_training
from training.engine.machine import Machine
from training.export import ExportOptions, export
from training.files import write_json
from training.metrics.quality import load_real
from training.metrics.translation import QUANTILES
from training.pretrained.encoder import EncoderRecipe
from training.runs.folder import RunFolder, save_checkpoint
from training.train_encoder import EncoderFolder, EncoderTrainer, load_encoder

EXPERIMENT = """
name = "small_digits"
data_license = "made for tests"
latent_dim = 8
batch_size = 8
steps = 6

[[domains]]
name = "digit"
source = "someone/digits"
crop = 0.9

[[domains]]
name = "edge"
source = "someone/digits"
transform = "edge"

[generator]
width = 0.02
initialisation = "he"

[discriminator]
width = 0.05
"""


def files() -> dict[str, bytes]:
    """Return a file of every format, mode and kind of transparency."""
    found = {f"{name} {options}": saved(picture(), name, **options) for name, ways in SAVED.items() for options in ways}
    for mode in ("1", "L", "LA", "P", "PA", "RGBA"):
        found[mode] = saved(picture().convert("RGBA").convert(mode), "TIFF" if mode == "PA" else "PNG")
    see_through = picture().convert("RGBA")
    see_through.putalpha(picture(channels=1, seed=1))
    found["see through"] = saved(see_through, "PNG")
    found["CMYK"] = saved(picture().convert("CMYK"), "JPEG")
    found["16 bits"] = saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 8
    found["turned"] = saved(picture(), "JPEG", exif=exif)
    found["turned TIFF"] = saved(picture(), "TIFF", exif=exif)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fields", [{}, {"margin": 3}, {"crop": 0.7}, {"crop": 1.0, "margin": 2}])
def test_images_are_fitted_as_in_training(channels: int, fields: dict[str, Any]) -> None:
    """What the service makes of a file, training makes of it, to the byte."""
    config = DomainConfig(name="digit", source="a", channels=1 if channels == 1 else 3, **fields)
    domain = Domain(name="digit", height=12, width=16, channels=config.channels, description="")
    for name, file in files().items():
        expected = fit_in_training(decode({"bytes": file, "path": None}), (12, 16), config)
        assert np.array_equal(fit_in_service(read_image(file), Fitting(domain, **fields)), expected), name


@pytest.mark.anyio
async def test_a_trained_encoder_translates(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real test image gets the latent and the error that torch finds, and the images of that latent."""
    monkeypatch.setenv("COGAN_DATA", str(digits_folder.parent))
    run, models = make_models(monkeypatch, tmp_path)
    path = next((digits_folder / "test").glob("*/*.png"))
    config = run.experiment().domains[0]
    image = fit_in_training(decode({"bytes": path.read_bytes(), "path": None}), (28, 28), config)
    encoder, _, quality = load_encoder(run)
    latents, errors = encoder.encode("digit", torch.from_numpy(image.copy()).movedim(-1, 0)[None])
    passes = quality["passes"] - 1
    app = create_app(Settings(models_dir=models, threads=1, processes=1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        answer = await client.post("/translate", files={"image": path.read_bytes()}, data={"from": "digit"})
        found = answer.raise_for_status().json()
        again = (await client.post("/generate", json={"latents": [found["latent"]]})).json()
        every = (await client.post("/translate", files={"image": path.read_bytes()})).json()
    np.testing.assert_allclose(found["latent"], latents[0, passes], atol=1e-3)
    assert found["error"] == pytest.approx(float(errors[0, passes]), abs=0.5)  # as bytes, not floats
    assert found["test_error"] == quality["domains"]["digit"]["error"]
    shares = found["test_error"]["quantiles"]
    assert found["likeness"] == ("typical" if found["error"] <= shares["0.9"] else "unusual")
    assert again["pairs"][0]["images"] == found["pairs"][0]["images"]
    assert every["errors"].keys() == {"digit", "edge"}
    assert every["errors"]["digit"] == found["error"]


def make_models(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[RunFolder, Path]:
    """Train and export a generator and its encoders, measured by their errors; return the run and the models' folder.

    What the verbs measure of quality beside takes minutes, and has tests of its own.
    """
    (file := folder / "small_digits.toml").write_text(EXPERIMENT)
    arguments = ["train", str(file), "--runs", str(folder / "runs"), "--machine.threads", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    train.main()
    run, recipe = RunFolder.open(folder / "runs/00000_small_digits"), EncoderRecipe(4, 4, 4, 2)
    trainer, encoders = (
        EncoderTrainer(run, recipe, Machine("cpu", 1).fabric()),
        EncoderFolder.open_or_create(run, recipe),
    )
    for _ in range(recipe.steps):
        trainer.step()
    save_checkpoint(encoders.checkpoints, recipe.steps, trainer.state_dict())
    domains = {}
    for name, images in load_real(run.experiment()).items():
        errors = trainer.encoder.encode(name, images.images)[1][:, -1]
        shares = {str(share): float(errors.quantile(share)) for share in QUANTILES}
        domains[name] = {"error": {"mean": float(errors.mean()), "quantiles": shares}}
    quality = {"steps": 4, "generator_steps": 6, "passes": 2, "error_by_passes": [], "domains": domains}
    write_json(encoders.quality_file, quality)
    write_json(run.quality_file, {"steps": 6})
    models = folder / "models"
    for domain in (None, "digit", "edge"):
        export(run, ExportOptions(models=models, encoder_of=domain))
    return run, models
