"""Attributes from a copy of CelebA to the measures: learned, evaluated, and coupled in pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.data.hub_layouts import ROWS, write_source
from training import evaluate, train, train_classifier
from training.config.experiment import load_experiment
from training.data.dataset import ImageSet, load_split
from training.pretrained.classifier import (
    Classifier,
    accuracy,
    classifier_file,
    confidence,
    fit,
    load_classifier,
    save_classifier,
)

RunVerb = Callable[..., None]
ATTRIBUTES = ("Male", "Smiling", "Young")
DOMAIN = """
[[domains]]
name = "{name}"
source = "flwrlabs/celeba"
where = {{ Eyeglasses = {glasses} }}
label_columns = ["Male", "Smiling", "Young"]
channels = 3
crop = 0.7
"""


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an experiment on faces with and without glasses, coupled by three attributes."""
    write_source(tmp_path / "data", "flwrlabs/celeba")
    monkeypatch.setenv("COGAN_DATA", str(tmp_path / "data"))
    file = tmp_path / "faces.toml"
    domains = DOMAIN.format(name="glasses", glasses="true") + DOMAIN.format(name="plain", glasses="false")
    file.write_text(
        f"""name = "faces"
data_license = "made for tests"
latent_dim = 8
batch_size = 4
steps = 2
{domains}
[[couplings]]
name = "semantic"
weight = 40.0
classifiers = "{tmp_path / "couplers"}"
[generator]
table = "digit_leaky"
width = 0.01
[discriminator]
table = "digit_strided"
width = 0.02
"""
    )
    return file


def test_pairs_are_coupled_and_evaluated_by_attributes(
    run_verb: RunVerb, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verbs go from columns of yes and no to measures, and tell the accuracy of each attribute."""
    for folder in ("couplers", "judges"):
        options = ["--classifiers", tmp_path / folder, "--table", "digit_small", "--epochs", 1]
        run_verb(train_classifier, faces, *options)
    message = capsys.readouterr().out
    run_verb(train, faces, "--runs", tmp_path, "--machine.accelerator", "cpu", "--log-every", 1)
    (first, *_), run = (tmp_path / "00000_faces/metrics.jsonl").read_text().splitlines(), tmp_path
    assert 0 < json.loads(first)["semantic"] < 0.25
    run_verb(evaluate, run / "00000_faces", "--classifiers", tmp_path / "judges", "--pairs", 20)
    quality: dict[str, Any] = json.loads((run / "00000_faces/quality.json").read_text())
    assert 0 <= quality["class_agreement"]["plain"] <= 1
    assert quality["frechet_distance"].keys() == quality["class_balance"].keys() == {"glasses", "plain"}
    for domain in load_experiment(faces).domains:
        classifier = load_classifier(classifier_file(tmp_path / "judges", domain, (28, 28)))
        test_set = load_split(domain, "test", (28, 28))
        assert test_set.labels is not None
        assert test_set.labels.shape == (ROWS / 3 if domain.name == "glasses" else ROWS * 2 / 3, 3)
        right = ((classifier(test_set.images) > 0) == test_set.labels).double().mean(0)
        named = quality["classifier_accuracy"][domain.name]
        assert named == pytest.approx(dict(zip(ATTRIBUTES, right.tolist(), strict=True)))
        assert f"{domain.name}: {float(right.mean()):.2%} of real test images" in message
        assert f", Young {named['Young']:.2%}" in message


def test_a_classifier_learns_each_attribute(tmp_path: Path) -> None:
    """Whether the upper and whether the lower half is light are classified independently, and kept in the file."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400, 2), generator=random)
    images = torch.randint(100, (400, 1, 28, 28), dtype=torch.uint8, generator=random)
    images += (labels * 100).byte().repeat_interleave(14, 1)[:, None, :, None]
    classifier = Classifier("digit_small", 1, 2, ("upper", "lower"))
    fit(classifier, ImageSet(images[:300], labels[:300]), epochs=6, seed=0)
    shares = accuracy(classifier, ImageSet(images[300:], labels[300:]))
    assert shares.shape == (2,)
    assert float(shares.min()) > 0.95
    classifier.accuracy.copy_(shares)
    save_classifier(classifier, tmp_path / "kept.pt")
    again = load_classifier(tmp_path / "kept.pt")
    assert again.named_accuracy() == {"upper": float(shares[0]), "lower": float(shares[1])}
    has = classifier(images).sigmoid()
    torch.testing.assert_close(again.of_range((0.0, 1.0))(images / 255), has)
    torch.testing.assert_close(confidence(again, images), torch.maximum(has, 1 - has).prod(1))
