"""Quality of pairs: measures against values worked out by hand, what is measured, and against which floor."""

from __future__ import annotations

import math
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
    FrechetDistance,
    class_agreement,
    class_balance,
    counterpart_distance,
    doubtful,
    frechet_distance,
    load_true_pairs,
    measure_counterparts,
    measure_doubt,
    measure_pixels,
    measure_real_pairs,
    pixel_agreement,
)
from training.pretrained.classifier import Classifier, classify, confidence


def test_agreement_of_known_pixels() -> None:
    """Four pixels, 0, 25, 26 and 200 levels apart, and one of them on the other side of mid-grey."""
    expected = torch.tensor([[[[10, 50, 100, 220]]]], dtype=torch.uint8)
    generated = torch.tensor([[[[10, 75, 126, 20]]]], dtype=torch.uint8)
    assert pixel_agreement(expected, generated) == {"binarised": 0.75, "within_25": 0.5, "within_51": 0.75}


def test_mid_grey_lies_between_127_and_128() -> None:
    """Neighbouring levels disagree when binarised, where they lie on its two sides."""
    dark, light = torch.full((1, 1, 1, 1), 127).byte(), torch.full((1, 1, 1, 1), 128).byte()
    assert pixel_agreement(dark, light) == {"binarised": 0.0, "within_25": 1.0, "within_51": 1.0}


@pytest.mark.parametrize("name", ["identity", "edge", "negative"])
def test_exact_pairs_agree_wholly(name: str) -> None:
    """Images and their own transform agree in all pixels by all notions."""
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    assert set(pixel_agreement(transform(images, name), transform(images, name)).values()) == {1.0}


def test_class_agreement_counts_equal_classes() -> None:
    """Two of three pairs are called alike."""
    assert class_agreement(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3])) == pytest.approx(2 / 3)


def test_class_balance_is_an_entropy() -> None:
    """Equally many of each class give 1, one class alone 0, and two of four classes a half."""
    assert class_balance(torch.arange(10).repeat(3), 10) == pytest.approx(1)
    assert class_balance(torch.full((9,), 4), 10) == 0
    assert class_balance(torch.tensor([0, 1, 0, 1]), 4) == pytest.approx(0.5)


def test_attributes_are_measured_each() -> None:
    """Five of six attributes agree; of three attributes one is even, one constant, one had by one in four."""
    has = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert class_agreement(has[:2], torch.tensor([[1, 0, 1], [0, 1, 0]])) == pytest.approx(5 / 6)
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert class_balance(has, 2) == pytest.approx((1 + 0 + quarter) / 3)


@pytest.fixture
def pixels_as_features() -> Classifier:
    """Return a classifier whose features are the four pixels of its images, from -1 to 1."""
    classifier = Classifier("digit", channels=1, classes=2)
    classifier.body = nn.Sequential(nn.Flatten())
    classifier.num_features = 4
    return classifier.eval()


def test_equal_sets_have_no_distance(pixels_as_features: Classifier) -> None:
    """The Frechet distance of a set to itself, in any order, is nothing."""
    images = torch.randint(256, (200, 1, 2, 2), dtype=torch.uint8)
    assert frechet_distance(pixels_as_features, images, images.flip(0)) == pytest.approx(0, abs=1e-3)


def test_a_shift_costs_its_square(pixels_as_features: Classifier) -> None:
    """With equal covariances the distance is the squared distance of the means."""
    images = torch.randint(150, (200, 1, 2, 2), dtype=torch.uint8)
    shift = 100 * 2 / 255  # levels -> the classifier's range
    distance = frechet_distance(pixels_as_features, images, images + 100, batch=64)
    assert distance == pytest.approx(4 * shift**2, rel=1e-3)


def test_a_spread_costs_what_the_closed_form_says(pixels_as_features: Classifier) -> None:
    """Independent features with twice the deviation: |mean|^2 + sum of (sigma - 2 sigma)^2."""
    levels = torch.randint(100, (20_000, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = levels.double() * 2 / 255
    expected = 4 * (values.mean() ** 2 + values.var())
    assert frechet_distance(pixels_as_features, levels, levels * 2) == pytest.approx(float(expected), rel=0.02)


def test_real_images_are_read_once(pixels_as_features: Classifier) -> None:
    """One distance after another is what each is by itself, and the real images stay."""
    real, *others = torch.randint(256, (3, 200, 1, 2, 2), dtype=torch.uint8)
    distance = FrechetDistance(pixels_as_features, real)
    expected = [frechet_distance(pixels_as_features, real, images) for images in (*others, others[0])]
    assert [distance(images) for images in (*others, others[0])] == expected


def test_doubtful_images_are_counted() -> None:
    """One in four has less than 0.9; exactly 0.9 is not less."""
    assert doubtful(torch.tensor([0.95, 0.9, 0.5, 1.0], dtype=torch.float64), 0.9) == 0.25


def test_counterparts_are_nearer_than_others() -> None:
    """Images are at no distance from themselves, black from white at 1; shuffled pairs are the floor."""
    images = torch.arange(0, 250, 5, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, -1, 2, 3)
    measured = counterpart_distance(images, images)
    assert measured["distance"] == 0
    assert 0.2 < measured["floor"] < 0.5  # a third of the range, for uniform levels
    colour = images.expand(-1, 3, -1, -1)
    assert counterpart_distance(images, colour) == pytest.approx(measured)
    black, white = (torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.full((4, 3, 2, 2), 255, dtype=torch.uint8))
    assert counterpart_distance(black, white) == {"distance": 1.0, "floor": 1.0}


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
