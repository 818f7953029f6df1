"""Exported classifiers of adapted runs: proven, self-describing, and each of one domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from service.metadata import ModelMetadata, parse_metadata
from tests.conftest import describe_model
from training import export as export_verb
from training import train_classifier
from training.config.data import DomainConfig
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import load_split
from training.engine.trainer import Trainer
from training.errors import ConfigError, ExportError, RunError
from training.export import ExportOptions, export, export_classifier
from training.files import write_json
from training.networks.coupled import AdaptedClassifier
from training.onnx_export import make_graph, prove
from training.pretrained.classifier import Classifier, accuracy, classifier_file, load_recorded, save_classifier
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
    """Its kind, its one domain and what was measured are in the file, and Triton's configuration has its shapes."""
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
    assert metadata.quality == {"steps": 1, "not_measured": "accuracy: the test images of known have no labels"}


def test_a_classifier_that_reads_otherwise_is_refused(adapted: RunFolder, tmp_path: Path) -> None:
    """The proof compares probabilities: those of images in another range are no rounding error."""
    file, _ = export(adapted, ExportOptions(models=tmp_path, classifier_of="known"))
    _, metadata = open_file(file)
    known = load_adapted(adapted)[0]["known"]
    other = AdaptedClassifier(known.discriminator, "known", (0.0, 1.0), known.classes).eval()
    with pytest.raises(ExportError, match=r"classes, batch 1: values differ by up to 0\.\d+"):
        prove(make_graph(other, metadata), file)


def test_what_has_no_classifier_is_refused(
    adapted: RunFolder, make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """An unknown domain, a run without auxiliary losses and an unmeasured one are errors; nothing is written."""
    options = ExportOptions(models=tmp_path / "models", classifier_of="edge")
    with pytest.raises(ConfigError, match="classifier_of = 'edge': must be one of known, colour"):
        export(adapted, options)
    experiment = make_experiment()
    plain, trainer = RunFolder.create(tmp_path, experiment), make_trainer(experiment)
    save_checkpoint(plain.checkpoints, 1, trainer.state.state_dict())
    with pytest.raises(RunError, match="has no classifier: its experiment has no auxiliary losses"):
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


RunVerb = Callable[..., None]


@pytest.fixture
def trained(write_experiment: Path, tmp_path: Path, run_verb: RunVerb) -> dict[str, Path]:
    """Return the classifier files of an experiment's domains, of one epoch, by domain."""
    folder = tmp_path / "served"
    options = ["--table", "digit_small", "--seed", 5, "--epochs", 1, "--augmentations", "affine", "elastic"]
    run_verb(train_classifier, write_experiment, "--classifiers", folder, *options)
    experiment = load_experiment(write_experiment)
    return {d.name: classifier_file(folder, d, experiment.size) for d in experiment.domains}


def write_generator(models: Path, name: str, domains: dict[str, tuple[int, int, int]]) -> None:
    """Write a file that states that it is a generator of these domains."""
    metadata = describe_model(name, "3", domains)
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {"cogan": metadata.model_dump_json()})
    (models / name / "3").mkdir(parents=True)
    onnx.save(model, models / name / "3" / "model.onnx")


def test_a_classifier_file_is_exported_from_the_command_line(
    trained: dict[str, Path], digits_folder: Path, tmp_path: Path, run_verb: RunVerb
) -> None:
    """The file computes what torch does, and states classes, generators, accuracy and how it was trained."""
    models = tmp_path / "models"
    write_generator(models, "pairs", {"digit": (28, 28, 1), "edge": (28, 28, 1)})
    run_verb(export_verb, trained["edge"], "--models", models, "--goes-with", "pairs")
    session, metadata = open_file(models / "edge_classifier" / "1" / "model.onnx")
    classifier, record = load_recorded(trained["edge"])
    test_set = load_split(DomainConfig("edge", source=str(digits_folder), transform="edge"), "test", (28, 28))
    images = test_set.images
    (classes,) = session.run(["classes"], {"edge": images.permute(0, 2, 3, 1).numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(classes, classifier(images).softmax(1), atol=1e-5)
    np.testing.assert_allclose(classes.sum(1), 1.0, atol=1e-5)

    assert (metadata.kind, metadata.prior, metadata.goes_with) == ("classifier", None, ("pairs",))
    assert metadata.classes == (test_set.class_names or tuple("0123456789"))
    assert [domain.name for domain in metadata.domains] == ["edge"]
    assert metadata.data_license == "made for tests"
    assert metadata.provenance == record.provenance
    provenance = metadata.provenance
    assert (provenance.seed, provenance.images_seen) == (5, provenance.steps * 128)
    assert provenance.experiment["augmentations"] == ["affine", "elastic"]
    assert provenance.experiment["table"] == "digit_small"
    assert provenance.versions["torch"] == torch.__version__

    assert test_set.labels is not None
    quality: Any = metadata.quality
    assert quality["images"] == len(images)
    assert quality["accuracy"] == pytest.approx(float(accuracy(classifier, test_set)))
    right = torch.from_numpy(classes).argmax(1) == test_set.labels
    assert quality["accuracy_by_class"] == {
        name: pytest.approx(float(right[test_set.labels == number].float().mean()))
        for number, name in enumerate(metadata.classes)
    }


@pytest.mark.parametrize(
    ("goes_with", "message"),
    [
        ("nothing", "goes_with: {models}/nothing holds no model: export the generator first, or leave it out"),
        ("colours", "goes_with: {models}/colours/3/model.onnx is a generator of [('edge', 28, 28, 3)]; it must be"),
        ("digits", "goes_with: {models}/digits/3/model.onnx is a generator of [('digit', 28, 28, 1)]; it must be"),
    ],
)
def test_a_classifier_goes_with_generators_of_its_domain(
    trained: dict[str, Path],
    tmp_path: Path,
    run_verb: RunVerb,
    capsys: pytest.CaptureFixture[str],
    goes_with: str,
    message: str,
) -> None:
    """A generator that is missing, or of other images, is named with the remedy, and nothing is written."""
    models = tmp_path / "models"
    write_generator(models, "colours", {"edge": (28, 28, 3)})
    write_generator(models, "digits", {"digit": (28, 28, 1)})
    with pytest.raises(SystemExit, match="2"):
        run_verb(export_verb, trained["edge"], "--models", models, "--goes-with", goes_with)
    assert message.format(models=models) in capsys.readouterr().err
    assert sorted(entry.name for entry in models.iterdir()) == ["colours", "digits"]


def test_a_file_that_cannot_be_exported_names_the_remedy(trained: dict[str, Path], tmp_path: Path) -> None:
    """A file that is missing, of an earlier version, or of attributes is named, with the cause."""
    with pytest.raises(RunError, match=r"none\.pt is missing: python -m training\.train_classifier"):
        export_classifier(tmp_path / "none.pt", ExportOptions(models=tmp_path / "models"))
    old = tmp_path / "old.pt"
    save_classifier(Classifier("digit_small", channels=1, classes=10), old)
    with pytest.raises(RunError, match=r"old\.pt has no training record.*train_classifier .* anew"):
        export_classifier(old, ExportOptions(models=tmp_path / "models"))
    record = load_recorded(trained["digit"])[1]
    of_attributes = Classifier("digit_small", 1, 2, ("upper", "lower"))
    save_classifier(of_attributes, old, record.model_copy(update={"class_names": ()}))
    with pytest.raises(RunError, match=r"old\.pt classifies the attributes upper, lower.*a label_column"):
        export_classifier(old, ExportOptions(models=tmp_path / "models"))
    state = torch.load(old)
    torch.save(state | {"record": "{}"}, old)
    with pytest.raises(RunError, match=r"old\.pt does not hold a training record of this version"):
        export_classifier(old, ExportOptions(models=tmp_path / "models"))
    with pytest.raises(ConfigError, match=r"classifier_of = 'digit' is for a run folder, and .*\.pt is a"):
        export_classifier(trained["digit"], ExportOptions(models=tmp_path / "models", classifier_of="digit"))
    assert not (tmp_path / "models").exists()


def test_a_generator_goes_with_nothing(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Only a classifier names generators."""
    experiment = make_experiment()
    run, trainer = RunFolder.create(tmp_path, experiment), make_trainer(experiment)
    trainer.step()
    save_checkpoint(run.checkpoints, 1, trainer.state.state_dict())
    write_json(run.quality_file, {"steps": 1})
    with pytest.raises(ConfigError, match=r"goes_with = .* is for a classifier, and tiny is a generator"):
        export(run, ExportOptions(models=tmp_path / "models", goes_with=("tiny",)))
