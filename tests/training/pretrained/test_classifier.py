"""Classifiers of a domain's own images, and the files that keep them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training import train
from training.config.data import DomainConfig, PruneConfig
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import load_split, load_training_sets
from training.errors import DataError, RunError
from training.pretrained.classifier import (
    Classifier,
    accuracy,
    classifier_file,
    confidence,
    fit,
    load_classifier,
    prune,
    save_classifier,
    share_choices,
)

SIZE = (28, 28)


def test_a_classifier_learns_and_is_kept(digits_folder: Path, tmp_path: Path) -> None:
    """A few epochs on 300 digits tell most test digits apart, and the file gives back the same classifier."""
    domain = DomainConfig("digit", source=str(digits_folder))
    torch.manual_seed(0)
    classifier = Classifier("digit", channels=1, classes=10)
    fit(classifier, load_split(domain, "train", SIZE), epochs=12, seed=0)
    test_set = load_split(domain, "test", SIZE)
    share = accuracy(classifier, test_set)
    assert share > 0.8
    file = classifier_file(tmp_path / "new", domain, SIZE)
    save_classifier(classifier, file)
    again = load_classifier(file)
    assert torch.equal(again(test_set.images), classifier(test_set.images))
    assert accuracy(again, test_set) == share


def test_classifiers_of_different_images_have_different_files(tmp_path: Path) -> None:
    """The name depends on all that a domain's images depend on, and nothing else."""
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


def test_a_missing_classifier_names_its_verb(tmp_path: Path) -> None:
    """Measuring without classifiers says what makes them."""
    with pytest.raises(RunError, match=r"python -m training\.train_classifier RECIPE\.toml"):
        load_classifier(tmp_path / "none.pt")


def test_a_damaged_classifier_names_its_verb(tmp_path: Path) -> None:
    """What was cut short, and a file of something else, are made anew by what makes them."""
    file = tmp_path / "kept.pt"
    save_classifier(Classifier("digit_small", channels=1, classes=2), file)
    whole = file.read_bytes()
    torch.save({"steps_done": 5}, file)
    for content in (whole[:500], b"", b"no classifier", file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"kept\.pt does not hold a classifier: \S.*; .+ makes it anew"):
            load_classifier(file)


MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def classifier() -> Classifier:
    """Return a classifier that has learned nothing, and is surer of some images than of others."""
    torch.manual_seed(0)
    return Classifier("digit_small", channels=1, classes=10).eval()


def pruned(make_experiment: MakeExperiment, folder: Path, below: float) -> Experiment:
    """Make an experiment of a domain that is pruned and one that is not."""
    digit, edge = make_experiment(("digit", "edge")).domains
    return replace(make_experiment(), domains=(replace(digit, prune=PruneConfig(below, classifiers=str(folder))), edge))


def test_images_that_the_classifier_is_sure_of_are_kept(
    make_experiment: MakeExperiment, classifier: Classifier, tmp_path: Path
) -> None:
    """Exactly those stay whose most probable class is probable enough, in order, with their labels."""
    sets = load_training_sets(make_experiment())
    certain = confidence(classifier, sets["digit"].images)
    below = float(certain.median())
    experiment = pruned(make_experiment, tmp_path, below)
    save_classifier(classifier, classifier_file(tmp_path, experiment.domains[0], experiment.size))
    kept = prune(experiment, sets)
    sure = certain >= below
    assert 70 < int(sure.sum()) < 80  # of 150
    assert torch.equal(kept["digit"].images, sets["digit"].images[sure])
    assert sets["digit"].labels is not None
    assert kept["digit"].labels is not None
    assert torch.equal(kept["digit"].labels, sets["digit"].labels[sure])
    assert kept["edge"] is sets["edge"]


def test_confidence_is_a_probability(classifier: Classifier) -> None:
    """It lies between that of a guess and certainty, and batches do not change it."""
    images = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8)
    certain = confidence(classifier, images)
    assert ((certain >= 0.1) & (certain <= 1)).all()
    torch.testing.assert_close(certain, confidence(classifier, images, batch=3))


def test_what_cannot_be_pruned_is_named(
    make_experiment: MakeExperiment, classifier: Classifier, tmp_path: Path
) -> None:
    """A classifier that is missing, and one that is sure of nothing."""
    experiment = pruned(make_experiment, tmp_path, 0.99)
    sets = load_training_sets(make_experiment())
    with pytest.raises(RunError, match=r"training\.train_classifier RECIPE\.toml --classifiers .+ makes it"):
        prune(experiment, sets)
    save_classifier(classifier, classifier_file(tmp_path, experiment.domains[0], experiment.size))
    with pytest.raises(DataError, match=r"domain digit: prune\.below = 0\.99 leaves no image"):
        prune(experiment, sets)


def test_a_run_learns_from_what_is_left(
    run_verb: Callable[..., None],
    write_experiment: Path,
    classifier: Classifier,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of a pruned domain begins with fewer images of it, and as many of the others."""
    experiment = load_experiment(write_experiment)
    certain = confidence(classifier, load_training_sets(experiment)["digit"].images)
    below = float(certain.median())
    save_classifier(classifier, classifier_file(tmp_path, experiment.domains[0], experiment.size))
    asked = ["--domains.0.prune.below", below, "--domains.0.prune.classifiers", tmp_path]
    run_verb(train, write_experiment, "--dry-run", *asked)
    message = capsys.readouterr().out
    left = int((certain >= below).sum())
    assert 40 < left < 60
    assert f"digit: {left} images" in message
    assert "edge: 100 images" in message


def test_choices_are_shared_out_as_classes_are_frequent() -> None:
    """Every class has one, however rare; of 52 letters that look like 43 classes, a doubled one has two."""
    assert share_choices(torch.tensor([60, 0, 39, 1]), 10).tolist() == [0] * 5 + [1] + [2] * 3 + [3]
    doubled = torch.tensor([2] * 9 + [1] * 34)
    assert share_choices(doubled * 74, 52).bincount().tolist() == doubled.tolist()
    assert share_choices(torch.tensor([5, 1]), 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="3 choices of 4 classes"):
        share_choices(torch.ones(4), 3)
