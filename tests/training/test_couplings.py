"""Couplings beside shared layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.couplings import COUPLINGS, semantic


def _certain(images: Tensor) -> Tensor:
    """Call an image the class of its first pixel, with certainty."""
    return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10) * 1000.0


def _of_class(classes: list[int]) -> Tensor:
    return torch.tensor(classes, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_pairs_of_one_class_cost_nothing(count: int) -> None:
    """However many domains there are, images that are called alike have a semantic loss of 0."""
    images = {f"d{i}": _of_class([1, 2, 3]) for i in range(count)}
    assert semantic(images, dict.fromkeys(images, _certain)) == 0.0


def test_pairs_of_two_classes_cost_what_the_formula_says() -> None:
    """Two of ten probabilities are half apart from the mean in both domains: 2 * 0.25 / 10."""
    images = {"left": _of_class([1]), "right": _of_class([2])}
    torch.testing.assert_close(semantic(images, dict.fromkeys(images, _certain)), torch.tensor(0.05))


def test_the_gradient_brings_the_classes_together() -> None:
    """A step against the gradient makes the loss smaller, through both domains."""
    torch.manual_seed(0)
    images = {name: torch.randn(4, 1, 4, 4, requires_grad=True) for name in ("left", "right")}
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    loss = semantic(images, dict.fromkeys(images, network))
    loss.backward()
    moved = {name: batch - 10.0 * batch.grad for name, batch in images.items() if batch.grad is not None}
    assert list(moved) == list(images)
    assert semantic(moved, dict.fromkeys(images, network)) < loss


def test_every_coupling_says_what_it_does() -> None:
    """Each registered coupling has a sentence for those who choose it."""
    assert all(coupling.__doc__ for coupling in COUPLINGS.values())
