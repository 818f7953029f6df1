"""Quality of pairs: what is measured, and against which floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.data.picture_sets import pictures, write_split
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import load_split
from training.losses.pixels import transform
from training.metrics.quality import (
    CONFIDENT,
    load_true_pairs,
    measure_counterparts,
    measure_doubt,
    measure_pixels,
    measure_real_pairs,
)
from training.pretrained.classifier import Classifier, classify, confidence

MakeExperiment = Callable[..., Experiment]
SIZE = (28, 28)


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


def test_true_pairs_stand_beside_the_generated(tmp_path: Path) -> None:
    """A source of pairs measures how far images of a pair are apart; others have nothing to compare."""
    columns = {"image": pictures(0, 51, 102), "dark": pictures(0, 0, 51)}
    for split in ("train", "test"):
        write_split(tmp_path / "pairs", split, columns)
    domains = [{"name": name, "source": str(tmp_path / "pairs"), "image_column": name} for name in ("image", "dark")]
    experiment = parse_experiment({"name": "a", "data_license": "none", "domains": domains})
    generated = {
        name: torch.full((5, 1, *SIZE), level, dtype=torch.uint8) for name, level in (("image", 255), ("dark", 0))
    }
    measured = measure_counterparts(experiment, generated)["dark"]
    assert (measured["of"], measured["generated"]) == ("image", 1.0)
    assert measured["true_distance"] == pytest.approx(0.4 / 3)
    assert measured["true_floor"] > measured["true_distance"]
    alone = parse_experiment({"name": "a", "data_license": "none", "domains": domains[:1]})
    assert measure_counterparts(alone, generated) == {}


def test_true_pairs_are_transforms_of_the_same_images(make_experiment: MakeExperiment) -> None:
    """Whatever the first domain is; other images, and the same ones in colour, have no true pairs."""
    experiment = make_experiment(("negative", "digit", "edge", "colour"))
    pairs, (negative, digit, edge, _) = load_true_pairs(experiment), experiment.domains
    assert pairs.keys() == {"digit", "edge"}
    originals = load_split(digit, "test", SIZE).images
    for domain in (digit, edge):
        first, other = pairs[domain.name]
        assert torch.equal(first, transform(originals, negative.transform))
        assert torch.equal(other, transform(originals, domain.transform))
    others = replace(experiment, domains=(negative, replace(edge, margin=2)))
    assert load_true_pairs(others) == {}


def test_true_pairs_are_columns_of_one_table(tmp_path: Path) -> None:
    """The images of a test row are a pair."""
    columns = {"image": pictures(0, 51, 102), "dark": pictures(0, 0, 51)}
    for split in ("train", "test"):
        write_split(tmp_path / "pairs", split, columns)
    domains = [{"name": name, "source": str(tmp_path / "pairs"), "image_column": name} for name in ("image", "dark")]
    experiment = parse_experiment({"name": "a", "data_license": "none", "domains": domains})
    image, dark = load_true_pairs(experiment)["dark"]
    assert image[:, 0, 0, 0].tolist() == [0, 51, 102]
    assert dark[:, 0, 0, 0].tolist() == [0, 0, 51]


@pytest.fixture
def brightness() -> Classifier:
    """Return a classifier of two classes, dark and bright, which doubts what lies between."""
    classifier = Classifier("digit", channels=1, classes=2)
    classifier.body = nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(1))
    last = nn.Linear(1, 2)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[-4.0], [4.0]]))
        last.bias.zero_()
    classifier.last = last  # type: ignore[assignment]  # layers of no architecture
    return classifier.eval()


def test_real_pairs_and_doubt_are_what_the_classifiers_say(
    make_experiment: MakeExperiment, brightness: Classifier
) -> None:
    """A digit is dark where its negative is bright, and of middling images the classifier is not sure."""
    experiment = make_experiment(("digit", "negative"))
    classifiers = dict.fromkeys(("digit", "negative"), brightness)
    real = {domain.name: load_split(domain, "test", SIZE) for domain in experiment.domains}
    first, other = (classify(brightness, real[name].images) for name in classifiers)
    agreement = measure_real_pairs(experiment, classifiers)["class_agreement_of_real_pairs"]
    assert agreement == {"negative": float((first == other).double().mean())}
    levels = torch.tensor([0, 60, 120, 140, 255], dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, -1, *SIZE)
    sure = confidence(brightness, levels)
    assert (sure < CONFIDENT).tolist() == [False, False, True, True, False]
    doubt = measure_doubt(dict.fromkeys(classifiers, levels), real, classifiers)["doubtful_images"]
    assert doubt["digit"]["generated"] == doubt["negative"]["generated"] == 0.4
    assert doubt["digit"]["real"] == float((confidence(brightness, real["digit"].images) < CONFIDENT).double().mean())
    assert measure_real_pairs(make_experiment(("digit",)), classifiers) == {}
    assert measure_real_pairs(experiment, {"negative": brightness}) == {}  # one domain has no classifier
