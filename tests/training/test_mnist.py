"""The real MNIST and USPS, where $COGAN_DATA has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.config.experiment import load_experiment
from training.data.dataset import load_split, load_training_sets
from training.losses.pixels import transform

EXPERIMENTS = Path(__file__).parents[2] / "training" / "recipes"
ROOT = Path(os.environ.get("COGAN_DATA", "/nowhere"))


def needs(*folders: str) -> pytest.MarkDecorator:
    """Skip a test where one of the folders is not below the data root."""
    missing = [folder for folder in folders if not (ROOT / folder).is_dir()]
    return pytest.mark.skipif(bool(missing), reason=f"COGAN_DATA holds no folder {', '.join(missing)}")


@needs("mnist")
def test_mnist_is_shared_out_in_disjoint_halves() -> None:
    """All 60,000 images go to two domains, and hardly an image of one has its edge in the other."""
    sets = load_training_sets(load_experiment(EXPERIMENTS / "digit_edge.toml"))
    assert {name: tuple(loaded.images.shape) for name, loaded in sets.items()} == {
        "digit": (30_000, 1, 28, 28),
        "edge": (30_000, 1, 28, 28),
    }
    edges_of_digits = {image.numpy().tobytes() for image in transform(sets["digit"].images, "edge")}
    edges = {image.numpy().tobytes() for image in sets["edge"].images}
    assert len(edges_of_digits & edges) == 0  # no two images of MNIST are equal
    digits = sets["digit"].labels
    assert digits is not None
    assert digits.bincount().tolist() == pytest.approx([3000] * 10, rel=0.15)


@needs("mnist", "usps")
def test_usps_lies_as_mnist_does() -> None:
    """With its margin, a digit of USPS is as tall and as wide as one of MNIST, within a pixel."""
    experiment = load_experiment(EXPERIMENTS / "digit_usps.toml")
    spans = []
    for domain in experiment.domains:
        inked = load_split(domain, "test", experiment.size).images[:, 0] > 60
        spans.append([float(inked.any(axis).sum(1).float().mean()) for axis in (2, 1)])
    assert spans[0] == pytest.approx(spans[1], abs=1)
