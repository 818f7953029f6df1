"""What `train_classifier` and `evaluate` measure on a run, and when they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training import evaluate, train, train_classifier
from training.config.data import DomainConfig
from training.config.experiment import Experiment
from training.data.dataset import ImageSet
from training.errors import DataError
from training.metrics.quality import measure, measure_classes
from training.pretrained.classifier import Classifier, accuracy

RunVerb = Callable[..., None]
SIZE = (28, 28)
CPU = torch.device("cpu")


def test_the_verbs_measure_a_run(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every measure of every domain stands in quality.json, beside its floor, and a sheet beside it."""
    evaluation_classifiers = ["--classifiers", tmp_path / "classifiers"]
    run_verb(train_classifier, write_experiment, *evaluation_classifiers, "--epochs", 1)
    message = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines() if "classified right" in line]
    assert message == ["digit", "edge", "negative"]
    run_verb(train, write_experiment, "--runs", tmp_path)
    run_verb(evaluate, tmp_path / "00000_tiny", *evaluation_classifiers, "--pairs", 20)
    quality: dict[str, Any] = json.loads((tmp_path / "00000_tiny/quality.json").read_text())
    assert (quality["steps"], quality["pairs"]) == (5, 20)
    assert quality["pixel_agreement"].keys() == {"edge", "negative"}
    for measured in quality["pixel_agreement"].values():
        assert measured["of"] == "digit"
        assert measured.keys() - {"of", "floor"} == measured["floor"].keys()
    assert quality["class_agreement"].keys() == {"edge", "negative"}
    assert quality["class_agreement_of_real_pairs"].keys() == {"edge", "negative"}
    assert all(0 <= share <= 1 for share in quality["class_agreement_of_real_pairs"].values())
    for key in ("class_balance", "classifier_accuracy", "frechet_distance", "doubtful_images"):
        assert quality[key].keys() == {"digit", "edge", "negative"}
    for distance in quality["frechet_distance"].values():
        assert 0 <= distance["floor"] < distance["drawn"]
    with Image.open(tmp_path / "00000_tiny/sheet.png") as sheet:
        assert sheet.size == (8 * 3 * 28 * 2, 3 * 28 * 2)


def test_domains_without_a_classifier_are_measured_without_labels(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path
) -> None:
    """Each by a public network, beside the floor of real images, with the reason and the nearest training images."""
    classifiers = ["--classifiers", tmp_path / "classifiers"]
    run_verb(train, write_experiment, "--runs", tmp_path)
    run_verb(train_classifier, write_experiment, *classifiers, "--epochs", 1)
    kept = next(iter((tmp_path / "classifiers").glob("*edge*.pt")))
    for file in set((tmp_path / "classifiers").iterdir()) - {kept}:
        file.unlink()
    run_verb(evaluate, tmp_path / "00000_tiny", *classifiers, "--pairs", 50, "--images", 40)
    quality: dict[str, Any] = json.loads((tmp_path / "00000_tiny/quality.json").read_text())
    assert quality["frechet_distance"].keys() == quality["class_balance"].keys() == {"edge"}
    assert quality["without_classes"].keys() == {"digit", "negative"}
    assert "train_classifier makes it" in quality["without_classes"]["digit"]
    measured = quality["without_labels"]["domains"]
    assert measured.keys() == {"digit", "negative"}
    for name, figures in measured.items():
        assert figures["images"] == {"compared": 40, "test": 40, "training": 40, "learned_from": 100}
        for distance in ("frechet_distance", "kernel_distance"):
            assert figures[distance]["floor"] < figures[distance]["generated"]
        with Image.open(tmp_path / f"00000_tiny/nearest_{name}.png") as sheet:
            assert sheet.size == (4 * 2 * 28 * 2, 3 * 28 * 2)


def test_a_classifier_needs_labels(tmp_path: Path) -> None:
    """A folder without classes is named, and its generated pairs are measured without them."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(3):
            Image.new("L", SIZE, 80 * i).save(tmp_path / split / f"{i}.png")
    domain = DomainConfig("plain", source=str(tmp_path))
    experiment = Experiment(name="a", domains=(domain,), data_license="none")
    with pytest.raises(DataError, match=r"domain plain: .+ has no column 'label'"):
        train_classifier.train_classifier(domain, experiment, train_classifier.ClassifierOptions(), CPU)
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(DataError, match="needs labels"):
        accuracy(Classifier("digit", 1, 2), ImageSet(images, None))
    quality = measure(experiment, {"plain": images}, tmp_path, CPU)
    assert quality["without_classes"] == {"plain": "no labels for plain"}
    assert "frechet_distance" not in quality


def test_a_classifier_needs_labels_to_be_measured(tmp_path: Path) -> None:
    """Test images without classes are an error that names domain and split, before the training."""
    images = np.zeros((4, *SIZE), np.uint8)
    np.savez(tmp_path / "train.npz", image=images, label=np.arange(4))
    np.savez(tmp_path / "test.npz", image=images)
    domain = DomainConfig("plain", source=str(tmp_path))
    experiment = Experiment(name="a", domains=(domain,), data_license="none")
    with pytest.raises(DataError, match=r"domain plain: .+ split 'test' of .+ has no column 'label'"):
        train_classifier.train_classifier(domain, experiment, train_classifier.ClassifierOptions(), CPU)


def test_other_classes_have_none_to_agree_on() -> None:
    """Pairs of dogs and cats with dogs and wolves are not compared by their numbers, and it is said why."""
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    names = {"ours": ("cat", "dog"), "same": ("cat", "dog"), "theirs": ("dog", "wolf")}
    evaluation_classifiers = {name: Classifier("digit", 1, 2).eval() for name in names}
    quality = measure_classes(dict.fromkeys(names, images), evaluation_classifiers, names)
    assert quality["class_agreement"].keys() == {"same"}
    assert quality["class_balance"].keys() == names.keys()
    assert quality["not_measured"] == ("class agreement: class 0 of domain theirs is 'dog', and that of ours 'cat'")
