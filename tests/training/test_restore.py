"""The weights of an exported generator: a run made again for every verb but training, and the start of a new run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from service.metadata import graph_digest
from training import restore as restore_verb
from training import train, train_encoder
from training.config.experiment import Experiment
from training.engine.state import State, build_generator
from training.engine.trainer import Trainer
from training.errors import ConfigError, RunError
from training.export import ExportOptions, export, export_again
from training.files import read_json, write_json
from training.losses.pixels import to_bytes
from training.networks.coupled import generate, latents_of_seeds
from training.pretrained.encoder import EncoderRecipe
from training.pretrained.exported import read_metadata
from training.restore import restore
from training.runs.folder import RunFolder, chosen_by, find_run, load_average, save_checkpoint
from training.train_encoder import EncoderFolder, EncoderTrainer

from .conftest import CPU

MakeExperiment = Callable[..., Experiment]
CLASSIFIER = Path(__file__).parents[2] / "models/digit_classifier"
QUALITY = {"steps": 3, "class_agreement": {"edge": 0.5}}
TABLES = {  # each with another kind of layer: PReLU, padding, repeated pixels, blocks with skips
    "digit": {"width": 1 / 128},
    "digit_mapped": {"width": 1 / 32, "choices": 3},
    "connected": {"width": 1 / 64},
    "upsample": {"width": 1 / 4},
    "modern_32": {"width": 1 / 8},
}


def make_model(experiment: Experiment, folder: Path) -> tuple[RunFolder, Path]:
    """Return a run whose networks have learned nothing, after three steps, and its exported generator."""
    run, generator = RunFolder.create(folder / "runs", experiment), build_generator(experiment)
    latents = torch.randn(64, experiment.latent_dim, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        generator(latents)  # its statistics are no longer those it began with
    save_checkpoint(run.checkpoints, 3, {"steps_done": 3, "average": generator.state_dict()})
    write_json(run.quality_file, QUALITY)
    return run, export(run, ExportOptions(models=folder / "models"))[0]


@pytest.mark.parametrize("table", TABLES)
def test_a_restored_run_draws_the_same(make_experiment: MakeExperiment, tmp_path: Path, table: str) -> None:
    """Its images are those of the run that made the model; what the model says of itself is in the folder."""
    strided = "digit_strided" if table.startswith("digit") else "upsample"
    generator = {"table": table, "initialisation": "he", **TABLES[table]}
    experiment = make_experiment(generator=generator, discriminator={"table": strided})
    made, file = make_model(experiment, tmp_path)
    run, report = restore(file, tmp_path / "restored")
    assert "onnxruntime computes what PyTorch does" in report
    assert run.experiment() == experiment
    assert run.quality(3) == QUALITY
    assert chosen_by(run) == {}
    description = read_json(run.path / "experiment.json", dict)
    assert description == {**made.description(), "restored_from": str(file)}
    latents = latents_of_seeds(experiment.latent_prior, range(20))
    (was, _), (restored, steps) = load_average(made), load_average(run)
    assert steps == 3
    for name, images in generate(was, latents).items():
        assert images.float().std() > 5
        assert (images.int() - generate(restored, latents)[name].int()).abs().max() <= 1


def test_an_encoder_of_a_restored_run_is_exported(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """It is trained without a discriminator, and belongs to the model that was restored."""
    _, file = make_model(make_experiment(), tmp_path)
    run, _ = restore(file, tmp_path / "restored")
    recipe = EncoderRecipe(steps=1, batch_size=4, channels=4, passes=1)
    with pytest.raises(ConfigError, match=r"recipe.feature_weight = 1.0: .* restored from .* has no discriminator"):
        EncoderTrainer(run, recipe, CPU.fabric())
    plain = replace(recipe, feature_weight=0.0)
    trainer, folder = EncoderTrainer(run, plain, CPU.fabric()), EncoderFolder.open_or_create(run, plain)
    trainer.step()
    save_checkpoint(folder.checkpoints, 1, trainer.state_dict())
    parts = {"edge": {"images": 1, "error": {"mean": 1.0, "quantiles": {"0.5": 1.0}}}}
    steps = {"steps": 1, "generator_steps": trainer.generator_steps}
    write_json(folder.quality_file, steps | {"passes": 1, "error_by_passes": [1.0], "domains": parts})
    encoder, _ = export(run, ExportOptions(models=tmp_path / "models", encoder_of="edge"))
    assert read_metadata(encoder).kind == "encoder"
    models = ExportOptions(models=tmp_path / "models")
    newest, _ = export_again(file, models)  # of the same graph, so of the same digest
    again, report = export_again(encoder, models)
    assert again.parent.name == "2"
    assert report.startswith(f"onnxruntime computes what {encoder} does at batches")
    assert read_metadata(again).goes_with == (graph_digest(newest.read_bytes()),)
    for version in (file, newest):
        version.unlink()
    with pytest.raises(RunError, match="does not hold the generator of graph digest"):
        export_again(encoder, models)


def test_the_verb_restores_and_training_says_why_not(
    run_verb: Callable[..., None], make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is printed; a model holds no discriminator to go on with."""
    _, file = make_model(make_experiment(), tmp_path)
    run_verb(restore_verb, file.parents[1], "--runs", tmp_path / "restored")  # a model's folder stands for its newest
    run = tmp_path / "restored" / "00000_tiny"
    assert f"{run}: onnxruntime computes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, run)
    assert f"{run} was restored from {file}, which has no discriminator" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_verb(train_encoder, run, "--recipe.steps", 1)
    assert "recipe.feature_weight = 1.0" in capsys.readouterr().err
    assert not (run / "encoder").exists()  # so that the remedy works
    assert find_run(tmp_path / "restored", RunFolder.open(run).experiment()) is None


def test_what_is_no_generator_is_refused(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Nothing is written for a file of another kind, or whose weights are not those of its experiment."""
    (classifier,) = CLASSIFIER.glob("*/model.onnx")
    with pytest.raises(ConfigError, match="is a classifier: only a generator is restored"):
        restore(classifier, tmp_path / "restored")
    with pytest.raises(RunError, match="does not hold an exported model"):
        restore(Path(__file__), tmp_path / "restored")
    _, file = make_model(make_experiment(), tmp_path)
    model = onnx.load(file)
    del model.graph.initializer[0]
    file.write_bytes(model.SerializeToString())
    with pytest.raises(RunError, match=r"does not hold the weights of its experiment"):
        restore(file, tmp_path / "restored")
    assert not list((tmp_path / "restored").glob("*"))


@pytest.mark.parametrize("table", TABLES)
def test_training_starts_from_the_weights_of_a_file(
    make_experiment: MakeExperiment, tmp_path: Path, table: str
) -> None:
    """The EMA draws what the file does, and the network that learns nearly so, by the statistics of a batch.

    A normalisation without weights, as `digit` has, cannot hold others than the statistics of the images.
    """
    strided = "digit_strided" if table.startswith("digit") else "upsample"
    generator = {"table": table, "initialisation": "he", **TABLES[table]}
    experiment = make_experiment(generator=generator, discriminator={"table": strided})
    made, file = make_model(experiment, tmp_path)
    state = State(experiment, CPU.fabric())
    state.start_from(file)
    latents = latents_of_seeds(experiment.latent_prior, range(1000))
    wanted, drawn = generate(load_average(made)[0], latents), generate(state.ema_generator, latents)
    learning = state.generator.train()(latents)
    for name, images in wanted.items():
        differences = (images.int() - drawn[name].int()).abs().float()
        assert differences.max() <= 1 or (table == "digit" and differences.mean() < 0.1 * images.float().std())
        learned = to_bytes(learning[name], experiment.image_range).float()
        assert (images.float() - learned).abs().mean() < 0.2 * images.float().std()


def test_layers_that_the_file_shares_become_each_domains_own(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A recipe that shares fewer layers draws what the file draws; of one that shares more, the field is named."""
    fewer, some, more = (make_experiment(generator={"shared_layers": shared}) for shared in (1, 2, 3))
    made, file = make_model(some, tmp_path)
    state = State(fewer, CPU.fabric())
    state.start_from(file)
    latents = latents_of_seeds(fewer.latent_prior, range(100))
    drawn = generate(state.ema_generator, latents)
    for name, images in generate(load_average(made)[0], latents).items():
        assert (images.int() - drawn[name].int()).abs().max() <= 1
    one, other = state.generator.heads.values()
    assert not {id(weight) for weight in one.parameters()} & {id(weight) for weight in other.parameters()}
    with pytest.raises(ConfigError, match=r"generator.shared_layers = 3, and the model has 2; a recipe"):
        State(more, CPU.fabric()).start_from(file)


def test_the_discriminator_learns_alone_at_first(
    make_experiment: MakeExperiment, make_trainer: Callable[..., Trainer]
) -> None:
    """The generator waits, with all of its updates, until the discriminator has had its steps."""
    experiment = make_experiment(generator={"updates": 2}, discriminator={"alone": 2})
    trainer = make_trainer(experiment)

    def weights() -> list[torch.Tensor]:
        networks = (trainer.state.discriminator, trainer.state.generator, trainer.state.ema_generator)
        return [torch.cat([weight.flatten() for weight in network.parameters()]) for network in networks]

    for alone in (True, True, False):
        before = weights()
        trainer.step()
        changed = [bool((was != now).any()) for was, now in zip(before, weights(), strict=True)]
        assert changed == [True, not alone, not alone]


def test_a_start_that_does_not_fit_is_named(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """The error has the field, its value and the model's; also where weights of equal shapes would be loaded."""
    names = ["digit", "edge", "negative"]
    _, file = make_model(make_experiment(names), tmp_path)
    for changes, field in (
        ({"names": names[:2]}, r"channels of domains = \[1, 1\], and the model has \[1, 1, 1\]"),
        ({"names": [*names[1:], "digit"]}, r"domains = \['edge', 'negative', 'digit'\], and the model has \['digit'"),
        ({"latent_dim": 9}, "latent_dim = 9, and the model has 8"),
        ({"prior": "uniform"}, "prior = 'uniform', and the model has 'normal'"),
        ({"generator": {"choices": 3}}, r"generator.choices = 3, and the model has 0; a recipe"),
    ):
        other = make_experiment(**({"names": names} | changes))
        with pytest.raises(ConfigError, match=rf"generator.start = '.*model.onnx': {field}"):
            State(other, CPU.fabric()).start_from(file)
    (classifier,) = CLASSIFIER.glob("*/model.onnx")
    with pytest.raises(ConfigError, match=r"model.onnx' is a classifier: name the file of a generator"):
        State(make_experiment(), CPU.fabric()).start_from(classifier)
    with pytest.raises(ConfigError, match=r"generator.start = 'missing.onnx': there is no such file, seen from /"):
        State(make_experiment(), CPU.fabric()).start_from(Path("missing.onnx"))


def test_a_resumed_run_needs_its_start_no_more(
    run_verb: Callable[..., None], write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new run begins with the file's weights; one that has a checkpoint goes on from that, without the file."""
    runs = ("--runs", tmp_path / "runs")
    run_verb(train, write_experiment, *runs, "--steps", 1)
    write_json(tmp_path / "runs/00000_tiny/quality.json", QUALITY | {"steps": 1})
    file, _ = export(RunFolder.open(tmp_path / "runs/00000_tiny"), ExportOptions(models=tmp_path / "models"))
    start = ("--generator.start", file, "--discriminator.alone", 1)
    run_verb(train, write_experiment, *runs, *start, "--steps", 2)
    latents = torch.randn(8, 8)
    first, second = (load_average(RunFolder.open(tmp_path / "runs" / name))[0] for name in ("00000_tiny", "00001_tiny"))
    for name, images in generate(first, latents).items():
        assert (images.int() - generate(second, latents)[name].int()).abs().max() <= 1
    file.unlink()
    run_verb(train, tmp_path / "runs/00001_tiny")
    assert "done: " in capsys.readouterr().out


def test_a_file_of_halves_draws_the_same_and_is_restored(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Its weights take half the bytes, a byte of an image differs by 1 at most, and it may be written again."""
    experiment = make_experiment(generator={"table": "digit_mapped", "width": 1 / 4, "initialisation": "he"})
    run, whole = make_model(experiment, tmp_path)
    models = ExportOptions(models=tmp_path / "models", halves=True)
    half, report = export(run, models)
    assert report.startswith("onnxruntime computes what PyTorch does")
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    assert read_metadata(half).directions
    restored, _ = restore(half, tmp_path / "restored")
    latents = latents_of_seeds(experiment.latent_prior, range(20))
    (was, _), (now, _) = load_average(run), load_average(restored)
    for name, images in generate(was, latents).items():
        assert (images.int() - generate(now, latents)[name].int()).abs().max() <= 1
    again, _ = export_again(half, models)
    assert again.stat().st_size == pytest.approx(half.stat().st_size, rel=0.01)
