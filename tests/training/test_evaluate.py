"""What `train_classifiers` and `evaluate` measure on a run, and when they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from training import evaluate, train, train_classifiers
from training.config.domain import DomainConfig
from training.config.experiment import Experiment
from training.errors import DataError, RunError
from training.evaluate import measure, measure_pixels
from training.images.sets import ImageSet, load_split
from training.pixels.transforms import transform
from training.pretrained.classifiers import (
    Classifier,
    accuracy,
    classifier_file,
    fit,
    load_classifier,
    save_classifier,
)

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
SIZE = (28, 28)


def test_the_verbs_measure_a_run(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every measure of every domain stands in quality.json, beside its floor, and a sheet beside it."""
    judges = ["--classifiers", tmp_path / "classifiers"]
    run_verb(train_classifiers, write_experiment, *judges, "--epochs", 1)
    said = [
        line.split(": ")[0] for line in capsys.readouterr().out.splitlines() if "classified right" in line
    ]
    assert said == ["digit", "edge", "negative"]
    run_verb(train, write_experiment, "--runs", tmp_path)
    run_verb(evaluate, tmp_path / "00000_tiny", *judges, "--pairs", 20)
    quality: dict[str, Any] = json.loads((tmp_path / "00000_tiny/quality.json").read_text())
    assert (quality["steps"], quality["pairs"]) == (5, 20)
    assert quality["pixel_agreement"].keys() == {"edge", "negative"}
    for measured in quality["pixel_agreement"].values():
        assert measured["of"] == "digit"
        assert measured.keys() - {"of", "floor"} == measured["floor"].keys()
    assert quality["class_agreement"].keys() == {"edge", "negative"}
    for key in ("class_balance", "classifier_accuracy", "frechet_distance"):
        assert quality[key].keys() == {"digit", "edge", "negative"}
    for distance in quality["frechet_distance"].values():
        assert 0 <= distance["floor"] < distance["drawn"]
    with Image.open(tmp_path / "00000_tiny/sheet.png") as sheet:
        assert sheet.size == (8 * 3 * 28 * 2, 3 * 28 * 2)


def test_perfect_pairs_are_found_perfect(make_experiment: MakeExperiment) -> None:
    """Real images and their own transforms agree wholly; the floor of unrelated ones lies below."""
    domains = make_experiment(("digit", "edge", "negative")).domains
    real = {domain.name: load_split(domain, "test", SIZE) for domain in domains}
    pairs = {domain.name: transform(real["digit"].images, domain.transform) for domain in domains}
    measured = measure_pixels(domains, pairs, real)
    assert measured.keys() == {"edge", "negative"}
    for agreement in measured.values():
        assert agreement["binarised"] == agreement["within_25"] == 1.0
        assert 0.3 < agreement["floor"]["within_25"] < 0.95


def test_a_transform_is_measured_against_the_same_images_alone(make_experiment: MakeExperiment) -> None:
    """What is made of other images, or of these fitted otherwise, says nothing of the pixels of a pair."""
    digit, edge = make_experiment(("digit", "edge")).domains
    real = {name: load_split(digit, "test", SIZE) for name in ("digit", "edge")}
    pairs = {name: images.images for name, images in real.items()}
    for strange in (replace(edge, margin=2), replace(edge, image_column="photo"), replace(edge, channels=3)):
        assert measure_pixels((digit, strange), pairs, real) == {}
    for same in (edge, replace(edge, train_split="train[50%:]")):
        assert measure_pixels((digit, same), pairs, real).keys() == {"edge"}


def test_a_classifier_learns_and_is_kept(digits_folder: Path, tmp_path: Path) -> None:
    """A few epochs on 300 digits tell most test digits apart, and the file gives back the same judge."""
    domain = DomainConfig("digit", source=str(digits_folder))
    classifier = Classifier("digit", channels=1, classes=10)
    fit(classifier, load_split(domain, "train", SIZE), epochs=6, seed=0)
    test_set = load_split(domain, "test", SIZE)
    share = accuracy(classifier, test_set)
    assert share > 0.8
    file = classifier_file(tmp_path / "new", domain, SIZE)
    save_classifier(classifier, file)
    again = load_classifier(file)
    assert torch.equal(again(test_set.images), classifier(test_set.images))
    assert accuracy(again, test_set) == share


def test_classifiers_of_different_images_have_different_files(tmp_path: Path) -> None:
    """The name tells apart all that a domain's images depend on, and nothing else."""
    base: dict[str, Any] = {"name": "digit", "source": "a/mnist"}

    def file(size: tuple[int, int] = SIZE, **change: Any) -> Path:
        return classifier_file(tmp_path, DomainConfig(**(base | change)), size)

    others: list[dict[str, Any]] = [
        {"transform": "edge"},
        {"channels": 3},
        {"margin": 3},
        {"train_split": "train[:50%]"},
        {"source": "b/mnist"},
        {"source": "a/usps"},
        {"image_column": "img"},
        {"size": (32, 32)},
    ]
    assert len({file(), *(file(**change) for change in others)}) == 1 + len(others)
    same: list[dict[str, Any]] = [
        {"name": "other"},
        {"description": "ink"},
        {"test_split": "valid"},
        {"labelled": True},
        {"count": 5},
    ]
    assert {file(**change) for change in same} == {file()}


def test_a_classifier_needs_labels(tmp_path: Path) -> None:
    """A folder without classes is named, and the pairs drawn for it are measured without them."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(3):
            Image.new("L", SIZE, 80 * i).save(tmp_path / split / f"{i}.png")
    domain = DomainConfig("plain", source=str(tmp_path))
    experiment = Experiment(name="a", domains=(domain,), data_license="none")
    with pytest.raises(DataError, match=r"domain plain: .+ has no column 'label'"):
        train_classifiers.train_classifier(domain, experiment, train_classifiers.ClassifierOptions())
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(DataError, match="needs labels"):
        accuracy(Classifier("digit", 1, 2), ImageSet(images, None))
    quality = measure(experiment, {"plain": images}, tmp_path)
    assert quality["not_measured"] == "classes and Frechet distances: no labels for plain"


def test_a_missing_classifier_names_its_verb(tmp_path: Path) -> None:
    """Measuring without classifiers says what makes them."""
    with pytest.raises(RunError, match=r"python -m training\.train_classifiers EXPERIMENT\.toml"):
        load_classifier(tmp_path / "none.pt")
