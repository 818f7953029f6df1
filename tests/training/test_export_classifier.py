"""Exported classifiers of adapted runs: proven, self-describing, and each of one domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from service.metadata import ModelMetadata, parse_metadata
from training.config.experiment import Experiment
from training.engine.trainer import Trainer
from training.errors import ConfigError, ExportError, RunError
from training.export import ExportOptions, export
from training.files import write_json
from training.networks.coupled import AdaptedClassifier
from training.onnx_export import prove
from training.runs.folder import RunFolder, load_adapted, save_checkpoint

MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCURACY = {"steps": 1, "images": {"colour": 100}, "accuracy": {"colour": 0.25}, "class_names": DIGITS}


@pytest.fixture(scope="module")
def adapted(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """Return a measured run of a grey, labelled domain and one in colour, one step long."""
    experiment = make_experiment(
        ("known", "colour"),
        lessons=[{"name": "labels", "weight": 1.0}],
        classifier={"classes": 10, "ema": 0.0},
        discriminator={"initialisation": "he", "width": 1 / 16},
    )
    run, trainer = RunFolder.create(tmp_path_factory.mktemp("runs"), experiment), make_trainer(experiment)
    trainer.step()
    save_checkpoint(run.checkpoints, 1, trainer.state.state_dict())
    write_json(run.accuracy_file, ACCURACY)
    return run


def open_file(file: Path) -> tuple[onnxruntime.InferenceSession, ModelMetadata]:
    """Open an exported file, and read what it says of itself."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session, parse_metadata(session.get_modelmeta().custom_metadata_map)


@pytest.mark.parametrize(("domain", "channels"), [("known", 1), ("colour", 3)])
def test_onnxruntime_reads_what_torch_reads(adapted: RunFolder, tmp_path: Path, domain: str, channels: int) -> None:
    """Bytes in, probabilities of the classes out, at every batch size those of the domain's own way."""
    file, report = export(adapted, ExportOptions(models=tmp_path, classifier_of=domain))
    assert file == tmp_path / f"tiny_{domain}_classifier" / "1" / "model.onnx"
    assert "batches (1, 2, 7, 64)" in report
    session, _ = open_file(file)
    classifier = load_adapted(adapted)[0][domain]
    for batch in (1, 5):
        images = np.random.default_rng(batch).integers(256, size=(batch, 28, 28, channels), dtype=np.uint8)
        (classes,) = session.run(["classes"], {domain: images})
        with torch.inference_mode():
            expected = classifier(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1)
        assert classes.dtype == np.float32
        assert expected.std() > 0.01
        np.testing.assert_allclose(classes, expected, atol=1e-5)


def test_a_classifier_says_all_of_itself(adapted: RunFolder, tmp_path: Path) -> None:
    """Its kind, its one domain and what was measured are in the file, and Triton is told its shapes."""
    file, _ = export(adapted, ExportOptions(models=tmp_path, name="reader", classifier_of="colour"))
    _, metadata = open_file(file)
    assert (metadata.kind, metadata.name, metadata.version) == ("classifier", "reader", "1")
    assert [(domain.name, domain.channels) for domain in metadata.domains] == [("colour", 3)]
    assert metadata.classes == tuple(DIGITS)
    assert metadata.prior is None
    assert metadata.quality == {"steps": 1, "images": 100, "accuracy": 0.25}
    assert metadata.provenance.images_seen == 1 * 4 * 2  # of all domains that it learned from
    assert (tmp_path / "reader" / "config.pbtxt").read_text() == TRITON


def test_an_adapted_classifier_always_names_its_classes(
    adapted: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes that no source names are numbered, and a domain without test labels states why it has no accuracy."""
    monkeypatch.setattr(adapted, "accuracy_file", tmp_path / "accuracy.json")
    write_json(adapted.accuracy_file, {key: ACCURACY[key] for key in ("steps", "images", "accuracy")})
    file, _ = export(adapted, ExportOptions(models=tmp_path, classifier_of="known"))
    _, metadata = open_file(file)
    assert metadata.classes == tuple("0123456789")
    assert metadata.quality == {
        "steps": 1,
        "not_measured": "accuracy: the test images of known have no labels",
    }


def test_a_classifier_that_reads_otherwise_is_refused(adapted: RunFolder, tmp_path: Path) -> None:
    """The proof compares probabilities: those of images in another range are no rounding error."""
    file, _ = export(adapted, ExportOptions(models=tmp_path, classifier_of="known"))
    _, metadata = open_file(file)
    known = load_adapted(adapted)[0]["known"]
    other = AdaptedClassifier(known.discriminator, "known", (0.0, 1.0), known.classes).eval()
    with pytest.raises(ExportError, match=r"classes, batch 1: values differ by up to 0\.\d+"):
        prove(other, metadata, file)


def test_what_has_no_classifier_is_refused(
    adapted: RunFolder, make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """An unknown domain, a run without lessons and an unmeasured one are told so; nothing is written."""
    options = ExportOptions(models=tmp_path / "models", classifier_of="edge")
    with pytest.raises(ConfigError, match="classifier_of = 'edge': must be one of known, colour"):
        export(adapted, options)
    experiment = make_experiment()
    plain, trainer = RunFolder.create(tmp_path, experiment), make_trainer(experiment)
    save_checkpoint(plain.checkpoints, 1, trainer.state.state_dict())
    with pytest.raises(RunError, match="has no classifier: its experiment has no lessons"):
        export(plain, options)
    unmeasured = RunFolder.create(tmp_path, adapted.experiment())
    for file in adapted.checkpoints.iterdir():
        (unmeasured.checkpoints / file.name).symlink_to(file)
    with pytest.raises(RunError, match=r"not measured after step 1: python -m training\.adapt"):
        export(unmeasured, ExportOptions(models=tmp_path / "models", classifier_of="colour"))
    assert not (tmp_path / "models").exists()


TRITON = """\
name: "reader"
backend: "onnxruntime"
max_batch_size: 64
input [ { name: "colour" data_type: TYPE_UINT8 dims: [ 28, 28, 3 ] } ]
output [
  { name: "classes" data_type: TYPE_FP32 dims: [ 10 ] }
]
version_policy: { latest { num_versions: 1 } }
dynamic_batching { }
"""
