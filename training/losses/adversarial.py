"""Adversarial losses: siblings of one signature, by name.

Each has a discriminator's side (logits of real and of fake images, [B] each -> a scalar to minimise) and
a generator's side (the same arguments -> a scalar to minimise).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from training.losses.pixels import Images

Objective = Callable[[Tensor, Tensor], Tensor]
Cost = Callable[[Tensor], Tensor]  # of each logit


@dataclass(frozen=True)
class AdversarialLoss:
    """What each side minimises, and whether the generator's loss needs real images.

    `smoothed`, where the loss is one of labels, makes the same loss with other labels of real and of fake
    images in the discriminator's side than 1 and 0 (Salimans et al. 2016, section 3.4).

    `sides`, if the discriminator's loss is the mean of a cost of each real and one of each fake logit, are
    these two; `boundary`, if one logit separates real from fake images, is that logit.
    """

    about: str
    discriminator: Objective
    generator: Objective
    needs_real: bool = False
    smoothed: Callable[[float, float], AdversarialLoss] | None = None
    sides: tuple[Cost, Cost] | None = None
    boundary: float | None = None


def _of_sides(
    about: str, real_cost: Cost, fake_cost: Cost, generator: Objective, boundary: float | None = None
) -> AdversarialLoss:
    """Make a loss whose discriminator's side is the mean of a cost of real and one of fake logits."""

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return (real_cost(real) + fake_cost(fake)).mean()

    return AdversarialLoss(about, discriminator, generator, sides=(real_cost, fake_cost), boundary=boundary)


def _of_labels(
    about: str,
    cost: Callable[[Tensor, float], Tensor],
    logit_of: Callable[[float], float],
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> AdversarialLoss:
    """Make a loss from the cost of a logit at a label, and the logit of a label; the generator's label is 1."""

    def generator(_real: Tensor, fake: Tensor) -> Tensor:
        return cost(fake, 1.0).mean()

    real_cost, fake_cost = partial(_at, cost, real_label), partial(_at, cost, fake_label)
    loss = _of_sides(about, real_cost, fake_cost, generator, logit_of((real_label + fake_label) / 2))
    return replace(loss, smoothed=partial(_of_labels, about, cost, logit_of))


def _at(cost: Callable[[Tensor, float], Tensor], label: float, logits: Tensor) -> Tensor:
    return cost(logits, label)


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return label * softplus(-logits) + (1.0 - label) * softplus(logits)


def _half_square(logits: Tensor, label: float) -> Tensor:
    return (logits - label).square() / 2


def _critic_generator(_real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(fake - real).mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(real - fake).mean()


LOSSES = {
    "ce": _of_labels(
        "cross entropy, non-saturating for the generator (Goodfellow et al. 2014, section 3)", _cross_entropy, _log_odds
    ),
    "lsgan": _of_labels("least squares, with labels 1 and 0 (Mao et al. 2017, equation 9)", _half_square, float),
    "wgan": _of_sides(
        "difference of mean logits (Arjovsky et al. 2017, algorithm 1); needs a clip or a gradient penalty",
        lambda real: -real,
        lambda fake: fake,
        _critic_generator,
    ),
    "hinge": _of_sides(
        "hinge of the discriminator, mean logit of the generator (Miyato et al. 2018, equations 16 and 17)",
        lambda real: relu(1.0 - real),
        lambda fake: relu(1.0 + fake),
        _critic_generator,
        boundary=0.0,
    ),
    "relativistic": AdversarialLoss(
        "relativistic pairing of real and fake images (Huang et al. 2024, R3GAN, equation 2)",
        _relativistic_discriminator,
        _relativistic_generator,
        needs_real=True,
    ),
}


def sum_over_domains(objective: Objective, real: Images, fake: Images) -> Tensor:
    """Return the sum of each domain's loss, of logits [B] by domain.

    A sum, not a mean: a domain's gradient does not depend on how many other domains there are.
    """
    return torch.stack([objective(real[name], logits) for name, logits in fake.items()]).sum()


def adversarial_loss(name: str, real_label: float, fake_label: float) -> AdversarialLoss:
    """Return the loss of that name, with those labels in the discriminator's side if it has labels."""
    loss = LOSSES[name]
    return loss.smoothed(real_label, fake_label) if loss.smoothed else loss


@dataclass(frozen=True)
class Penalty:
    """A penalty: a place in PLACES where gradients are taken, and their cost.

    `cost` takes images [B, C, H, W] and their logits [B], by domain, and returns a scalar; the images need
    `requires_grad` before the logits are computed from them.
    """

    about: str
    place: str
    cost: Callable[[Images, Images], Tensor]


def half_square(images: Images, logits: Images) -> Tensor:
    """Half the mean squared norm of d logit / d image of each domain (Mescheder et al. 2018, equation 9)."""
    squares = [gradient.square().sum((1, 2, 3)).mean() for gradient in _gradients(images, logits)]
    return torch.stack(squares).sum() / 2


def distance_from_one(images: Images, logits: Images) -> Tensor:
    """Mean squared distance from 1 of the norm of d logit / d image (Gulrajani et al. 2017, equation 3)."""
    norms = [torch.linalg.vector_norm(gradient, dim=(1, 2, 3)) for gradient in _gradients(images, logits)]
    return torch.stack([(norm - 1.0).square().mean() for norm in norms]).sum()


def between(real: Images, fake: Images) -> Images:
    """Sample a point on the line from each real image to a generated one (Gulrajani et al. 2017, algorithm 1)."""
    return {
        name: torch.lerp(batch, fake[name], torch.rand(len(batch), 1, 1, 1, device=batch.device))
        for name, batch in real.items()
    }


def _gradients(images: Images, logits: Images) -> tuple[Tensor, ...]:
    total = torch.stack([batch.sum() for batch in logits.values()]).sum()
    return torch.autograd.grad(total, list(images.values()), create_graph=True)


PLACES: dict[str, Callable[[Images, Images], Images]] = {
    "real": lambda real, _fake: real,
    "fake": lambda _real, fake: fake,
    "between": between,
}

PENALTIES = {
    "r1": Penalty("R1, at real images (Mescheder et al. 2018)", "real", half_square),
    "r2": Penalty("R2, at generated images (Mescheder et al. 2018); R3GAN takes both", "fake", half_square),
    "gradient_penalty": Penalty("of WGAN-GP (Gulrajani et al. 2017)", "between", distance_from_one),
}
