"""Losses and penalties against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.losses.adversarial import LOSSES, PENALTIES, PLACES, between, distance_from_one, half_square


def test_cross_entropy_of_an_undecided_discriminator() -> None:
    """At zero logits the discriminator pays 2 ln 2 and the generator ln 2."""
    zero = torch.zeros(5)
    assert float(LOSSES["ce"].discriminator(zero, zero)) == pytest.approx(2 * math.log(2))
    assert float(LOSSES["ce"].generator(zero, zero)) == pytest.approx(math.log(2))


def test_relativistic_loss_of_equal_images() -> None:
    """Where real and fake have equal logits, whatever they are, both sides pay ln 2."""
    logits = torch.tensor([-3.0, 0.0, 2.0])
    assert float(LOSSES["relativistic"].discriminator(logits, logits)) == pytest.approx(math.log(2))
    assert float(LOSSES["relativistic"].generator(logits, logits)) == pytest.approx(math.log(2))


def softplus(x: float) -> float:
    """Return ln(1 + e^x)."""
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("ce", (softplus(-2) + 2 * softplus(1) + softplus(-3)) / 2, (softplus(3) + softplus(-1)) / 2),
        ("lsgan", (1 + 4 + 9 + 1) / 2 / 2, (16 + 0) / 2 / 2),
        ("wgan", -1 - 0.5, 1.0),
        ("hinge", (0 + 2 + 0 + 2) / 2, 1.0),
        ("relativistic", (softplus(-5) + softplus(2)) / 2, (softplus(5) + softplus(-2)) / 2),
    ],
)
def test_losses_are_their_papers_formulas(name: str, discriminator: float, generator: float) -> None:
    """Of real logits 2 and -1 and fake ones -3 and 1, each side pays what the cited equation gives."""
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 1.0])
    assert float(LOSSES[name].discriminator(real, fake)) == pytest.approx(discriminator)
    assert float(LOSSES[name].generator(real, fake)) == pytest.approx(generator)


@pytest.mark.parametrize(("name", "lowest"), [("ce", (math.log(9), -math.log(9))), ("lsgan", (0.9, 0.1))])
def test_smoothed_labels_move_the_best_logits(name: str, lowest: tuple[float, float]) -> None:
    """With labels .9 and .1 the discriminator's loss is least at finite logits; the generator's stays."""
    smoothed = LOSSES[name].smoothed
    assert smoothed
    loss = smoothed(0.9, 0.1)
    real, fake = (torch.full((3,), logit, requires_grad=True) for logit in lowest)
    for slope in torch.autograd.grad(loss.discriminator(real, fake), (real, fake)):
        torch.testing.assert_close(slope, torch.zeros(3), atol=1e-6, rtol=0)
    assert torch.equal(loss.generator(real, fake), LOSSES[name].generator(real, fake))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_separate_real_and_generated_logits(name: str) -> None:
    """Between the labels a discriminator wants real logits up, fake ones down; a generator fake ones up."""
    real, fake = torch.rand(2, 7, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind()
    loss = LOSSES[name]
    of_real, of_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_fake,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (of_fake < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_says_whether_it_needs_real_logits(name: str) -> None:
    """The generator's side depends on real logits exactly where the loss says so."""
    loss, fake = LOSSES[name], torch.zeros(3)
    differs = not torch.equal(loss.generator(torch.zeros(3), fake), loss.generator(torch.ones(3), fake))
    assert differs == loss.needs_real


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_at_extreme_logits(name: str) -> None:
    """A discriminator that is very sure gives large losses, not infinite ones."""
    sure, loss = torch.full((2,), 1e4), LOSSES[name]
    for real, fake in ((sure, -sure), (-sure, sure)):
        assert loss.discriminator(real, fake).isfinite()
        assert loss.generator(real, fake).isfinite()


def test_the_penalty_of_a_linear_discriminator() -> None:
    """Its gradient is its weight at every image, so a domain's penalty is half the weight's squared norm."""
    linear = nn.Linear(3 * 4 * 4, 1)
    images = {"digit": torch.randn(5, 3, 4, 4), "edge": torch.randn(2, 3, 4, 4)}
    images = {name: batch.requires_grad_() for name, batch in images.items()}
    logits = {name: linear(batch.flatten(1)).flatten() for name, batch in images.items()}
    expected = 2 * linear.weight.square().sum() / 2
    torch.testing.assert_close(half_square(images, logits), expected)


@pytest.mark.parametrize("norm", [0.0, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_discriminator(norm: float) -> None:
    """Its gradient is its weight, so each domain costs (norm - 1)^2; where all is 0 the slope is finite."""
    weight = (torch.eye(16)[3] * norm).requires_grad_()
    images = {"digit": torch.randn(5, 1, 4, 4), "edge": torch.randn(2, 1, 4, 4)}
    images = {name: batch.requires_grad_() for name, batch in images.items()}
    logits = {name: batch.flatten(1) @ weight for name, batch in images.items()}
    penalty = distance_from_one(images, logits)
    assert penalty.item() == pytest.approx(2 * (norm - 1) ** 2)
    (slope,) = torch.autograd.grad(penalty, weight)
    assert slope.isfinite().all()


@pytest.mark.parametrize(("name", "which"), [("r1", 0), ("r2", 1)])
def test_r1_is_at_real_images_and_r2_at_generated_ones(name: str, which: int) -> None:
    """Each penalty's place is the images that its paper names."""
    images = ({"digit": torch.zeros(1, 1, 2, 2)}, {"digit": torch.ones(1, 1, 2, 2)})
    assert PLACES[PENALTIES[name].place](*images) is images[which]


def test_points_between_lie_on_the_lines_from_real_to_generated_images() -> None:
    """Each image has a share of its own, the same for all its pixels."""
    real = {"digit": torch.zeros(50, 1, 4, 4), "edge": torch.zeros(50, 3, 4, 4)}
    points = between(real, {name: torch.full_like(batch, 8.0) for name, batch in real.items()})
    shares = torch.cat([batch[:, 0, 0, 0] for batch in points.values()]) / 8
    assert len(shares.unique()) == 100
    assert 0 <= shares.min() < 0.2 < 0.8 < shares.max() <= 1
    assert all(torch.equal(batch, batch[:, :1, :1, :1].expand_as(batch)) for batch in points.values())


def test_the_penalty_agrees_with_finite_differences() -> None:
    """The penalty of a curved discriminator, and its slope in a weight, are what small steps measure."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    image = torch.randn(1, 1, 2, 2, dtype=torch.float64, generator=generator)

    def logit(values: Tensor, scale: Tensor) -> Tensor:
        return torch.tanh(values.reshape(1, 4) @ weight * scale).sum(1)

    def measured(scale: float) -> float:
        """Half the squared norm of the gradient, by central differences."""
        step, total = 1e-5, 0.0
        for place in torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 2, 2):
            ahead, behind = (logit(image + side * step * place, torch.tensor(scale)).item() for side in (1, -1))
            total += ((ahead - behind) / (2 * step)) ** 2 / 2
        return total

    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    leaf = image.clone().requires_grad_()
    penalty = half_square({"digit": leaf}, {"digit": logit(leaf, scale)})
    assert penalty.item() == pytest.approx(measured(0.7), rel=1e-6)
    (slope,) = torch.autograd.grad(penalty, scale)
    assert slope.item() == pytest.approx((measured(0.701) - measured(0.699)) / 0.002, rel=1e-4)
