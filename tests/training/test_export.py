"""Exported files: proven, self-describing, and written whole or not at all."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import training
from service.metadata import parse_metadata
from training.config.experiment import Experiment
from training.engine.state import build_generator
from training.engine.trainer import Trainer
from training.errors import ConfigError, ExportError, RunError
from training.export import ExportOptions, describe, export, next_version
from training.files import write_json
from training.networks.coupled import latents_of_seeds
from training.onnx_export import GeneratorGraph
from training.pretrained.exported import read_metadata
from training.runs.folder import RunFolder, load_average, load_checkpoint, save_checkpoint

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
NAMES = ("digit", "edge", "colour")
QUALITY = {"steps": 1, "class_agreement": {"edge": 0.5}}
WIDE = {"width": 1 / 16, "initialisation": "he"}  # eight channels before the heads, and images not all grey


@pytest.fixture(scope="session")
def make_run(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunFolder]:
    """Return what makes a measured run of so many domains, one step long."""

    def make(domains: int, names: tuple[str, ...] = NAMES, choices: int = 0) -> RunFolder:
        experiment = make_experiment(names[:domains], generator=WIDE | {"choices": choices})
        run, trainer = RunFolder.create(tmp_path_factory.mktemp("runs"), experiment), make_trainer(experiment)
        trainer.step()
        save_checkpoint(run.checkpoints, 1, trainer.state.state_dict())
        write_json(run.quality_file, QUALITY)
        return run

    return make


@pytest.fixture(scope="session")
def coupled(make_run: Callable[..., RunFolder]) -> RunFolder:
    """Return a run of two domains."""
    return make_run(2)


def spoil(run: RunFolder) -> None:
    """Make a run's images depend on how floats are rounded, so that no other arithmetic draws the same.

    Equal features with opposite, huge weights cancel but for their rounding errors.
    """
    state = load_checkpoint(run.checkpoints)
    average, _ = load_average(run)
    *_, features, norm, _activation = average.trunk
    head = next(average.heads["edge"].parameters())
    with torch.no_grad():
        next(features.parameters())[:, 4:] = next(features.parameters())[:, :4]
        for values in norm.state_dict().values():
            if values.ndim:  # all but the count of batches
                values[4:] = values[:4]
        head.normal_(0, 1e10, generator=torch.Generator().manual_seed(0))
        head[4:] = -head[:4]
    save_checkpoint(run.checkpoints, 2, state | {"average": average.state_dict()})


def test_values_that_choose_are_exported(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    """The file draws what PyTorch does; its directions leave such values alone, as images would jump there once."""
    file, _ = export(make_run(2, choices=3), ExportOptions(models=tmp_path))
    vectors = np.array([one.vector for one in read_metadata(file).directions])
    assert np.abs(vectors[:, :3]).max() < 1e-9
    assert vectors[:, 3:].any(1).all()


@pytest.mark.parametrize("domains", [1, 2, 3])
def test_onnxruntime_draws_what_torch_draws(make_run: Callable[..., RunFolder], tmp_path: Path, domains: int) -> None:
    """At every batch size each output is uint8 [B, H, W, C] with torch's bytes, at most 1 apart."""
    run = make_run(domains)
    file, report = export(run, ExportOptions(models=tmp_path))
    assert file == tmp_path / "tiny" / "1" / "model.onnx"
    assert "batches (1, 2, 7, 64)" in report
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(NAMES[:domains])
    drawing = GeneratorGraph(load_average(run)[0])
    for batch in (1, 2, 7, 64):
        latents = latents_of_seeds(run.experiment().latent_prior, range(100, 100 + batch))
        with torch.inference_mode():
            expected = drawing(latents)
        generated = session.run(None, {"latent": latents.numpy()})
        for name, wanted, got in zip(NAMES, expected, generated, strict=False):
            assert got.dtype == "uint8"
            assert got.shape == (batch, 28, 28, 3 if name == "colour" else 1)
            assert wanted.float().std() > 5
            assert (wanted.int() - torch.from_numpy(got).int()).abs().max() <= 1


def test_a_domain_may_be_called_as_a_value_within(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    """The exporter names inner values after their operations; the outputs have the domains' names."""
    file, _ = export(make_run(2, ("clamp", "tanh")), ExportOptions(models=tmp_path))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["clamp", "tanh"]


def test_a_file_says_all_of_itself(coupled: RunFolder, tmp_path: Path) -> None:
    """The service reads back what was written, Triton's configuration agrees, and no source is named."""
    file, _ = export(coupled, ExportOptions(models=tmp_path, name="pairs"))
    model = onnx.load(file)
    metadata = parse_metadata({entry.key: entry.value for entry in model.metadata_props})
    described = describe(coupled, ExportOptions(models=tmp_path, name="pairs", version=1), steps=1)
    assert metadata == described.model_copy(update={"directions": metadata.directions})
    assert len(metadata.directions) == 8
    assert [domain.name for domain in metadata.domains] == ["digit", "edge"]
    assert metadata.quality == QUALITY
    provenance = metadata.provenance
    assert (provenance.steps, provenance.images_seen) == (1, 1 * 4 * 2)
    assert metadata.prior is not None
    assert provenance.experiment["latent_dim"] == metadata.prior.latent_dim == 8
    assert (tmp_path / "pairs" / "config.pbtxt").read_text() == TRITON
    content = file.read_bytes()
    for trace in (str(Path(training.__file__).parents[1]), sys.prefix, ".py"):
        assert trace.encode() not in content


def test_versions_count_up_and_are_never_changed(coupled: RunFolder, tmp_path: Path) -> None:
    """Without a number the next one is taken; an existing one is refused and stays as it is."""
    assert next_version(tmp_path / "tiny") == 1
    (tmp_path / "tiny" / "9").mkdir(parents=True)
    assert next_version(tmp_path / "tiny") == 10
    with pytest.raises(ConfigError, match=r"tiny/9 exists"):
        export(coupled, ExportOptions(models=tmp_path, version=9))
    assert describe(coupled, ExportOptions(models=tmp_path), steps=1).version == "10"
    assert [entry.name for entry in (tmp_path / "tiny").iterdir()] == ["9"]
    (tmp_path / "tiny" / "20241231235959").mkdir()  # no version, so that none comes after it
    assert next_version(tmp_path / "tiny") == 10


def test_a_config_that_was_edited_is_kept(coupled: RunFolder, tmp_path: Path) -> None:
    """A second export replaces nothing that a user wrote, and says so; as it was written it needs no word."""
    export(coupled, ExportOptions(models=tmp_path))
    _, report = export(coupled, ExportOptions(models=tmp_path))
    assert "config.pbtxt" not in report
    assert "README.md" not in report
    file, notes = tmp_path / "tiny" / "config.pbtxt", tmp_path / "tiny" / "README.md"
    edited = file.read_text() + "instance_group [ { count: 2 kind: KIND_CPU } ]\n"
    file.write_text(edited)
    notes.write_text("mine")
    _, report = export(coupled, ExportOptions(models=tmp_path))
    for kept in (file, notes):
        assert f"; {kept} is not what export writes, and is kept as it is: remove it to have it written anew" in report
    assert (file.read_text(), notes.read_text()) == (edited, "mine")
    assert sorted(entry.name for entry in (tmp_path / "tiny").iterdir()) == [
        "1",
        "2",
        "3",
        "README.md",
        "config.pbtxt",
        "directions.png",
        "sheet.png",
    ]


def test_the_folder_is_what_a_hub_publishes(coupled: RunFolder, tmp_path: Path) -> None:
    """The card has what a hub reads, every figure, licence and command; the sheet has the bytes of the file."""
    file, _ = export(coupled, ExportOptions(models=tmp_path, name="pairs"))
    card = ModelCard.load(tmp_path / "pairs" / "README.md")
    assert (card.data.library_name, card.data.license) == ("onnx", "other")
    assert card.data.tags == ["cogan", "coupled-gan", "generator"]
    assert "| class agreement edge | 0.5 |" in card.text
    assert f"Trained on: {coupled.experiment().data_license}\n" in card.text
    assert "make serve MODELS=hf://USER/pairs" in card.text
    latents = latents_of_seeds(coupled.experiment().latent_prior, range(32)).numpy()
    digits, edges = onnxruntime.InferenceSession(file).run(None, {"latent": latents})
    with Image.open(tmp_path / "pairs" / "sheet.png") as sheet:
        assert sheet.size == (4 * 2 * 28 * 2, 8 * 28 * 2)
        pixels = np.asarray(sheet)[::2, ::2]
    assert (pixels[28:56, :28] == digits[4, :, :, 0]).all()
    assert (pixels[28:56, 28:56] == edges[4, :, :, 0]).all()


def test_a_digest_is_beside_the_file(coupled: RunFolder, tmp_path: Path) -> None:
    """`sha256sum --check` takes it, as does a service that copies the folder from afar."""
    file, _ = export(coupled, ExportOptions(models=tmp_path))
    checked = subprocess.run(["sha256sum", "--check", "model.onnx.sha256"], cwd=file.parent, capture_output=True)
    assert (checked.returncode, checked.stdout) == (0, b"model.onnx: OK\n")


def test_an_export_names_the_file_that_a_full_disk_cut_short(coupled: RunFolder, tmp_path: Path) -> None:
    """It names the version's file and the cause, and leaves nothing behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match=r"tiny/1/model\.onnx cannot be written: File too large; make"):
            export(coupled, ExportOptions(models=tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_proof_leaves_nothing(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    """A file that draws other bytes never gets its name, and what stood there before is untouched."""
    run = make_run(2)
    spoil(run)
    for name in ("good/1/model.onnx", "good/config.pbtxt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("an earlier version's")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for name in ("good", "bad"):
        with pytest.raises(ExportError, match=r"edge, batch \d+: values differ by up to \d+"):
            export(run, ExportOptions(models=tmp_path, name=name))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["good"]
    assert sorted(entry.name for entry in (tmp_path / "good").iterdir()) == ["1", "config.pbtxt"]


def test_an_unmeasured_run_is_refused(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A run without quality names the command that measures it, and one without a checkpoint says so."""
    run = RunFolder.create(tmp_path, make_experiment())
    with pytest.raises(RunError, match="holds no checkpoint"):
        export(run, ExportOptions(models=tmp_path / "models"))
    average = build_generator(run.experiment()).state_dict()
    save_checkpoint(run.checkpoints, 7, {"steps_done": 7, "average": average})
    with pytest.raises(RunError, match=r"not measured after step 7: python -m training\.evaluate .+_tiny"):
        export(run, ExportOptions(models=tmp_path / "models"))
    assert not (tmp_path / "models").exists()


TRITON = """\
name: "pairs"
backend: "onnxruntime"
max_batch_size: 64
input [ { name: "latent" data_type: TYPE_FP32 dims: [ 8 ] } ]
output [
  { name: "digit" data_type: TYPE_UINT8 dims: [ 28, 28, 1 ] },
  { name: "edge" data_type: TYPE_UINT8 dims: [ 28, 28, 1 ] }
]
version_policy: { latest { num_versions: 1 } }
dynamic_batching { }
"""
