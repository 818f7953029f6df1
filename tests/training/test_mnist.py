"""The real MNIST, where $COGAN_DATA has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.config import load_experiment
from training.datasets import load_training_sets
from training.domains import transform

EXPERIMENT = Path(__file__).parents[2] / "training" / "experiments" / "digit_edge.toml"
MNIST = Path(os.environ.get("COGAN_DATA", "/nowhere"), "mnist")

pytestmark = pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST: COGAN_DATA holds no folder mnist")


def test_mnist_is_shared_out_in_disjoint_halves() -> None:
    """All 60,000 images go to two domains, and hardly an image of one has its edge in the other."""
    sets = load_training_sets(load_experiment(EXPERIMENT))
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
