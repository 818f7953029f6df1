"""Couplings beside shared layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from training.losses.coupling import (
    COUPLINGS,
    CouplingInputs,
    GeneratedBatch,
    content,
    cycle,
    features,
    reconstruction,
    semantic,
    style,
    weights,
)


def _certain(images: Tensor) -> Tensor:
    """Call an image the class of its first pixel, with certainty."""
    return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()


def _of_class(classes: list[int]) -> Tensor:
    return torch.tensor(classes, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def semantic_loss(images: dict[str, Tensor], classifier: Callable[[Tensor], Tensor] = _certain) -> Tensor:
    """Ask one classifier about all domains."""
    return semantic(GeneratedBatch(images), CouplingInputs(classify=dict.fromkeys(images, classifier)))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_pairs_of_one_class_cost_nothing(count: int) -> None:
    """However many domains there are, images that are called alike have a semantic loss of 0."""
    assert semantic_loss({f"d{i}": _of_class([1, 2, 3]) for i in range(count)}) == 0.0


def test_pairs_of_two_classes_cost_what_the_formula_says() -> None:
    """Two of ten probabilities differ by 1, and the loss is the mean squared difference: 2 / 10."""
    images = {"left": _of_class([1]), "right": _of_class([2])}
    torch.testing.assert_close(semantic_loss(images), torch.tensor(0.2))


def test_the_gradient_brings_the_classes_together() -> None:
    """A step against the gradient makes the loss smaller, through both domains."""
    torch.manual_seed(0)
    images = {name: torch.randn(4, 1, 4, 4, requires_grad=True) for name in ("left", "right")}
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.Softmax(1))
    loss = semantic_loss(images, network)
    loss.backward()
    moved = {name: batch - 10.0 * batch.grad for name, batch in images.items() if batch.grad is not None}
    assert list(moved) == list(images)
    assert semantic_loss(moved, network) < loss


@pytest.mark.parametrize(("layers", "expected"), [(1, 1.0), (2, 1.0 + 4.0 + 16.0)])
def test_the_weights_of_the_first_layers_are_compared(layers: int, expected: float) -> None:
    """Each tensor of each row adds the mean squared difference between the two domains."""
    rows = [[torch.zeros(3, 2)], [torch.ones(4), torch.zeros(2, 2)]]
    others = [[torch.ones(3, 2)], [torch.ones(4) * 3, torch.ones(2, 2) * 4]]
    inputs = CouplingInputs(layers=layers, weights={"left": rows, "right": others})
    assert weights(GeneratedBatch({}), inputs).item() == pytest.approx(expected)


@pytest.mark.parametrize(("layers", "expected"), [(1, 4.0), (2, 4.0 + 4.0)])
def test_the_features_of_the_first_layers_are_compared(layers: int, expected: float) -> None:
    """Each layer adds the mean squared difference between the two domains' outputs."""
    ones = torch.ones(2, 4, 3, 3)
    generated = GeneratedBatch({}, features={"left": [0 * ones, ones], "right": [2 * ones, 3 * ones]})
    assert features(generated, CouplingInputs(layers=layers)).item() == pytest.approx(expected)


def test_a_cycle_ends_where_it_began() -> None:
    """The cost is the mean absolute distance between the latents and the encoder's, summed over domains."""
    latents = torch.zeros(5, 8)
    found = {"left": latents + 1.0, "right": latents - 3.0}
    generated = GeneratedBatch({name: torch.zeros(5, 1, 4, 4) for name in found}, latents)
    assert cycle(generated, CouplingInputs(encode=lambda _: found)).item() == pytest.approx(4.0)


def test_content_is_the_last_of_the_features() -> None:
    """It costs the mean squared difference between domains, whatever the other features are."""
    images = {"left": torch.zeros(2, 1, 4, 4), "right": torch.full((2, 1, 4, 4), 6.0)}
    image_features = dict.fromkeys(images, lambda batch: [batch * 100, batch])
    assert content(GeneratedBatch(images), CouplingInputs(image_features=image_features)).item() == pytest.approx(36.0)


def test_style_is_how_channels_go_together() -> None:
    """A feature's Gram matrix is its mean over places; generated and real ones are compared image by image."""
    real = {"left": torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])}  # two channels of two places
    generated = {"left": torch.tensor([[[[3.0, 1.0]], [[0.0, 2.0]]]])}  # the places change, the style does not
    image_features = {"left": lambda batch: [batch, 2 * batch, batch + 1000.0]}
    assert style(GeneratedBatch(generated, real=real), CouplingInputs(image_features=image_features)) == 0.0
    generated["left"] = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # products 5, 3, 2 where 5, 1, 2 are real
    expected = (2 * 2.0**2 / 4 + 2 * 8.0**2 / 4) / 2
    assert style(
        GeneratedBatch(generated, real=real), CouplingInputs(image_features=image_features)
    ).item() == pytest.approx(expected)


def test_reconstruction_is_the_huber_loss() -> None:
    """Half a square up to a distance of 1, then linear, summed over domains."""
    real = {name: torch.zeros(2, 1, 2, 2) for name in ("left", "right")}
    generated = {"left": real["left"] + 0.5, "right": real["right"] - 3.0}
    expected = 0.5**2 / 2 + (3.0 - 0.5)
    assert reconstruction(GeneratedBatch(generated, real=real), CouplingInputs()).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["semantic", "weights", "features", "content"])
def test_a_domain_as_far_from_the_mean_has_the_same_gradient(name: str) -> None:
    """However many domains there are, with the same distance from their mean."""
    gradients = []
    for count in (2, 6):
        values = {f"d{i}": torch.full((3, 1, 4, 4), (-1.0) ** i).requires_grad_() for i in range(count)}
        inputs = CouplingInputs(
            weights={name: [[value]] for name, value in values.items()},
            classify=dict.fromkeys(values, lambda batch: batch.flatten(1)),
            image_features=dict.fromkeys(values, lambda batch: [batch]),
        )
        generated = GeneratedBatch(values, features={name: [value] for name, value in values.items()})
        (gradient,) = torch.autograd.grad(COUPLINGS[name].loss(generated, inputs), values["d0"])
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_every_coupling_says_what_it_does() -> None:
    """Each registered coupling has a sentence for those who choose it."""
    assert all(coupling.about for coupling in COUPLINGS.values())
