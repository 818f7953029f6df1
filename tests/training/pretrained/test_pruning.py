"""Images that a classifier is unsure of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training import train
from training.config.data import PruneConfig
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import load_training_sets
from training.errors import DataError, RunError
from training.pretrained.classifier import Classifier, classifier_file, confidence, prune, save_classifier

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
    with pytest.raises(RunError, match=r"training\.train_classifiers EXPERIMENT\.toml --classifiers .+ makes it"):
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
    said = capsys.readouterr().out
    left = int((certain >= below).sum())
    assert 40 < left < 60
    assert f"digit: {left} images" in said
    assert "edge: 100 images" in said
