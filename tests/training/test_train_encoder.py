"""Encoders: trained on a real run, resumed exactly, measured on real images, exported pass by pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from service.metadata import graph_digest
from training import train, train_classifier, train_encoder
from training.config.experiment import Experiment
from training.engine.trainer import Trainer
from training.errors import ConfigError, RunError
from training.export import ExportOptions, export, exported_generator
from training.files import write_json
from training.networks.coupled import generate, latents_of_seeds
from training.pretrained import recogniser
from training.pretrained.encoder import EncoderRecipe, LatentEncoder, descend, encoder_architecture
from training.pretrained.exported import read_metadata
from training.runs.folder import (
    RunFolder,
    Snapshot,
    load_average,
    load_checkpoint,
    save_best,
    save_checkpoint,
    snapshot_after,
)
from training.train_encoder import EncoderFolder, EncoderTrainer, load_encoder

from .conftest import CPU

RECIPE = EncoderRecipe(steps=6, batch_size=4, channels=4, passes=2)
WIDE = {"width": 1 / 32, "initialisation": "he"}  # so that latents show in the images


@pytest.fixture(scope="module")
def make_run(
    make_experiment: Callable[..., Experiment],
    make_trainer: Callable[..., Trainer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., RunFolder]:
    """Return what makes a run of one step."""

    def make(**changes: Any) -> RunFolder:
        experiment = make_experiment(("digit", "edge", "colour"), **changes)
        run, trainer = RunFolder.create(tmp_path_factory.mktemp("runs"), experiment), make_trainer(experiment)
        trainer.step()
        save_checkpoint(run.checkpoints, 1, trainer.state.state_dict())
        return run

    return make


@pytest.fixture(scope="module")
def run(make_run: Callable[..., RunFolder]) -> RunFolder:
    """Return a run of one step."""
    return make_run(generator=WIDE)


def weights(trainer: EncoderTrainer) -> torch.Tensor:
    """Return all weights of the encoder in one row."""
    return torch.cat([weight.detach().flatten() for weight in trainer.encoder.encoder.parameters()])


def test_a_stopped_encoder_goes_on_exactly(run: RunFolder) -> None:
    """Six steps are three and three, to the last bit, and the generator stays what it was."""
    straight, first, second = (EncoderTrainer(run, RECIPE, CPU.fabric()) for _ in range(3))
    for _ in range(6):
        straight.step()
    for _ in range(3):
        first.step()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.step()
    assert torch.equal(weights(straight), weights(second))
    assert not torch.equal(weights(first), weights(second))
    before = load_average(run)[0].state_dict()
    assert all(torch.equal(value, before[name]) for name, value in second.encoder.generator.state_dict().items())


def test_an_encoder_learns_the_latents_of_generated_images(run: RunFolder) -> None:
    """After some steps the latents of new generated images are nearer than the prior's mean."""
    recipe = EncoderRecipe(steps=150, batch_size=16, channels=8, passes=2, learning_rate=3e-3)
    trainer = EncoderTrainer(run, recipe, CPU.fabric())
    for _ in range(recipe.steps):
        trainer.step()
    known = latents_of_seeds(trainer.encoder.prior, range(64))
    images = generate(trainer.encoder.generator, known)
    for name, batch in images.items():
        found, _ = trainer.encoder.encode(name, batch)
        assert (found[:, -1] - known).square().mean() < 0.8 * known.square().mean(), name


def test_an_encoder_learns_what_a_latent_chooses(make_run: Callable[..., RunFolder]) -> None:
    """Of generated images it finds the greatest of the first values, which alone counts."""
    run = make_run(generator=WIDE | {"choices": 4})
    recipe = EncoderRecipe(steps=150, batch_size=16, channels=8, passes=2, learning_rate=3e-3)
    trainer = EncoderTrainer(run, recipe, CPU.fabric())
    for _ in range(recipe.steps):
        trainer.step()
    known = latents_of_seeds(trainer.encoder.prior, range(64))
    found, _ = trainer.encoder.encode("digit", generate(trainer.encoder.generator, known)["digit"])
    right = found[:, -1, :4].argmax(1) == known[:, :4].argmax(1)
    assert right.float().mean() > 0.8


def test_descent_comes_nearer(run: RunFolder) -> None:
    """Moved latents reconstruct the images better, and those they began with are not changed."""
    encoder = LatentEncoder(load_average(run)[0], run.experiment(), RECIPE)
    images = generate(encoder.generator, latents_of_seeds(encoder.prior, range(4)))["edge"]
    begun = torch.zeros(4, encoder.prior.latent_dim)
    moved = descend(encoder, "edge", images, begun, 50)
    assert not begun.any()

    def error(latents: torch.Tensor) -> torch.Tensor:
        return (generate(encoder.generator, latents)["edge"].float() - images).square().flatten(1).mean(1)

    assert (error(moved) < 0.5 * error(begun)).all()


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (64, 64), (128, 128)])
def test_convolutions_end_at_four_pixels_or_less(size: tuple[int, int]) -> None:
    """Images of any size become a few places before the dense layers."""
    strides = [
        layer.stride for layer in encoder_architecture(size, EncoderRecipe()).layers if layer.operation == "conv"
    ]
    assert 2 <= size[0] / np.prod(strides) <= 4


def test_the_verb_trains_measures_and_resumes(
    run_verb: Callable[..., None], write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every domain's images are translated into every other's, beside floor and ceiling; a second call measures."""
    classifiers, run = ["--classifiers", tmp_path / "classifiers"], tmp_path / "00000_tiny"
    run_verb(train_classifier, write_experiment, *classifiers, "--epochs", 1)
    run_verb(train, write_experiment, "--runs", tmp_path)
    options = ["--recipe.steps", 4, "--recipe.channels", 4, "--recipe.batch-size", 4, "--descent-images", 3]
    with pytest.raises(SystemExit):  # before anything is trained
        run_verb(train_encoder, run, "--classifiers", tmp_path / "none", *options)
    assert "none/digits_identity" in capsys.readouterr().err
    assert not (run / "encoder").exists()
    run_verb(train_encoder, run, *classifiers, *options)
    assert "--encoder-of digit" in capsys.readouterr().out
    quality = json.loads((run / "encoder/quality.json").read_text())
    assert 1 <= quality["passes"] <= 3
    assert quality["domains"].keys() == {"digit", "edge", "negative"}
    for name, measured in quality["domains"].items():
        shares = measured["error"]["quantiles"]
        assert 0 < shares["0.5"] <= shares["0.9"] <= shares["0.99"]
        for kind in ("encoder", "floor", "ceiling"):
            others = {other: found for other, found in measured[kind].items() if other != "images"}
            assert others.keys() == quality["domains"].keys() - {name}
            for found in others.values():
                assert found.keys() == {"class_kept", "pixel_agreement", "distance"}
                assert 0 <= found["class_kept"] <= 1
    assert len(list((run / "encoder/samples").glob("edge_*.png"))) == 1
    run_verb(train_encoder, run, *classifiers, *options)
    assert json.loads((run / "encoder/quality.json").read_text()) == quality
    with pytest.raises(SystemExit):
        run_verb(train_encoder, run, *classifiers, *options, "--recipe.passes", 1)
    assert "recipe.passes = 1, and was 3: remove" in capsys.readouterr().err


def test_translations_without_labels_are_recognised(
    run_verb: Callable[..., None], write_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a classifier, a network that tells the domains apart judges translations and real images."""
    monkeypatch.setattr(recogniser, "STEPS", 100)
    labels = [f"--domains.{number}.label-column=none" for number in range(3)]
    run_verb(train, write_experiment, "--runs", tmp_path, *labels)
    sizes = ["--recipe.channels", 4, "--recipe.batch-size", 4, "--recipe.domains", "digit"]
    run_verb(train_encoder, tmp_path / "00000_tiny", "--recipe.steps", 1, "--descent-images", 3, *sizes)
    measured = json.loads((tmp_path / "00000_tiny/encoder/quality.json").read_text())["domains"]["digit"]
    for name in ("edge", "negative"):
        assert measured["real"][name]["recognised"] > 0.9
        for kind in ("encoder", "floor", "ceiling"):
            assert measured[kind][name].keys() == {"recognised", "pixel_agreement", "distance"}
            assert 0 <= measured[kind][name]["recognised"] <= 1


def test_a_pass_tries_the_likeliest_choices(make_run: Callable[..., RunFolder]) -> None:
    """No pass makes a reconstruction worse, and an image whose choice was not the likeliest is found."""
    run = make_run(generator=WIDE | {"choices": 4})
    encoder = LatentEncoder(load_average(run)[0], run.experiment(), RECIPE)
    known = latents_of_seeds(encoder.prior, range(64))
    found, errors = encoder.encode("digit", generate(encoder.generator, known)["digit"], passes=3)
    assert found.shape == (64, 3, encoder.prior.latent_dim)
    assert (errors.diff(dim=1) <= 1e-4).all()
    right = found[:, -1, :4].argmax(1) == known[:, :4].argmax(1)
    assert right.float().mean() > 0.8  # untrained: by reconstruction alone


def test_one_domain_alone_is_encoded(run: RunFolder) -> None:
    """Its images alone are learned from; a domain that is not there is refused by name."""
    recipe = replace(RECIPE, domains=("edge",), dense=8, dense_layers=3)
    trainer = EncoderTrainer(run, recipe, CPU.fabric())
    trainer.step()
    assert list(trainer.encoder.encoder.stems) == ["edge"]
    dense = [module for module in trainer.encoder.encoder.modules() if isinstance(module, torch.nn.Linear)]
    assert [module.out_features for module in dense] == [8, 8, 8, trainer.encoder.prior.latent_dim]
    with pytest.raises(ConfigError, match=r"recipe.domains = bold: must be of digit, edge, colour"):
        EncoderTrainer(run, replace(RECIPE, domains=("edge", "bold")), CPU.fabric())


def test_an_encoder_belongs_to_the_generator_it_began_with(run: RunFolder) -> None:
    """One whose run has learned on meanwhile would answer with the latents of another generator."""
    trainer = EncoderTrainer(run, RECIPE, CPU.fabric())
    state = trainer.state_dict() | {"generator_steps": 7}
    with pytest.raises(RunError, match="generator of step 7, and the run is at step 1: remove"):
        trainer.load_state_dict(state)


def test_an_encoder_is_of_the_snapshot_that_is_named(run: RunFolder) -> None:
    """That of the least distance, or the last; it belongs to that one from then on."""
    save_best(run, 5, load_checkpoint(run.checkpoints)["average"], "frechet_distance", 1.0)
    try:
        names: tuple[Snapshot, ...] = ("best", "last")
        assert [EncoderTrainer(run, RECIPE, CPU.fabric(), name).generator_steps for name in names] == [5, 1]
        assert [snapshot_after(run, steps) for steps in (5, 1)] == ["best", "last"]
        with pytest.raises(RunError, match="no longer holds its generator after 3 steps"):
            snapshot_after(run, 3)
    finally:
        shutil.rmtree(run.best)


@pytest.mark.parametrize("choices", [0, 5])
def test_an_exported_encoder_is_one_pass(make_run: Callable[..., RunFolder], tmp_path: Path, choices: int) -> None:
    """In onnxruntime each pass refines the latents as PyTorch does, and the file names its generator."""
    run = make_run(generator=WIDE | {"choices": choices})
    trainer, folder = EncoderTrainer(run, RECIPE, CPU.fabric()), EncoderFolder.open_or_create(run, RECIPE)
    trainer.step()
    save_checkpoint(folder.checkpoints, 1, trainer.state_dict())
    parts = {"images": 1, "error": {"mean": 1.0, "quantiles": {"0.5": 1.0}}}
    measured = {
        "steps": 1,
        "generator_steps": 1,
        "passes": 2,
        "error_by_passes": [2.0, 1.0],
        "domains": {"edge": parts},
    }
    write_json(folder.quality_file, measured)
    options = ExportOptions(models=tmp_path, encoder_of="edge")
    with pytest.raises(RunError, match="does not hold the generator that the encoder belongs to"):
        export(run, options)
    write_json(run.quality_file, {"steps": 1})
    generator, _ = export(run, ExportOptions(models=tmp_path))
    file, _ = export(run, options)
    metadata = read_metadata(file)
    assert (metadata.kind, metadata.name, metadata.quality["passes"]) == ("encoder", "tiny_edge_encoder", 2)
    assert metadata.goes_with == (graph_digest(generator.read_bytes()),) == (exported_generator(run, tmp_path, 1),)
    encoder, *_ = load_encoder(run)
    images = generate(encoder.generator, latents_of_seeds(encoder.prior, range(3)))["edge"]
    expected, _ = encoder.encode("edge", images)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    latents = np.zeros((3, encoder.prior.latent_dim), np.float32)
    for number in range(2):
        inputs = {"edge": images.movedim(1, -1).numpy(), "previous": latents}
        (latents,) = session.run(["latent"], inputs)
        assert np.allclose(latents, expected[:, number].numpy(), atol=1e-3)
    with pytest.raises(ConfigError, match="encoder_of = 'digit': must be one of edge"):
        export(run, ExportOptions(models=tmp_path, encoder_of="digit"))


def test_a_run_that_learned_on_is_exported_anew(run: RunFolder, tmp_path: Path) -> None:
    """A generator of another step in the repository is not the encoder's."""
    write_json(run.quality_file, {"steps": 1})
    export(run, ExportOptions(models=tmp_path))
    state = load_checkpoint(run.checkpoints)
    later = save_checkpoint(run.checkpoints, 2, state | {"steps_done": 2})
    try:
        with pytest.raises(RunError, match="does not hold the generator"):
            exported_generator(run, tmp_path, 2)
    finally:
        later.unlink()
