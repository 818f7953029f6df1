"""Measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.losses.pixels import transform
from training.metrics.frechet import (
    FrechetDistance,
    class_agreement,
    class_balance,
    counterpart_distance,
    doubtful,
    frechet_distance,
    pixel_agreement,
)
from training.pretrained.classifier import Classifier


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
