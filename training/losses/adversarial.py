"""Adversarial losses and penalties by name.

A loss has a discriminator's and a generator's side: logits [B] of real and of fake images -> a scalar to minimise.
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
    """The objectives of the discriminator and of the generator, which both minimise."""

    about: str
    discriminator: Objective
    generator: Objective
    needs_real: bool = False
    """Whether the generator's side depends on real images."""
    smoothed: Callable[[float, float], AdversarialLoss] | None = None
    """Of a loss with labels: makes it with other labels of real and of fake images in the discriminator's side than
    1 and 0 (Salimans et al. 2016, section 3.4)."""
    sides: tuple[Cost, Cost] | None = None
    """The costs of a real and of a fake logit, if their mean is the discriminator's loss."""
    boundary: float | None = None
    """The logit that separates real from fake images, if one does."""


def _of_sides(
    about: str, real_cost: Cost, fake_cost: Cost, generator: Objective, boundary: float | None = None
) -> AdversarialLoss:
    """Make a loss whose discriminator's side is the mean of a cost of real and one of fake logits."""
    return AdversarialLoss(
        about,
        lambda real, fake: (real_cost(real) + fake_cost(fake)).mean(),
        generator,
        sides=(real_cost, fake_cost),
        boundary=boundary,
    )


def _of_labels(
    about: str,
    cost: Callable[[Tensor, float], Tensor],
    logit_of: Callable[[float], float],
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> AdversarialLoss:
    """Make a loss from the cost of a logit at a label, and the logit of a label; the generator's label is 1."""
    loss = _of_sides(
        about,
        lambda real: cost(real, real_label),
        lambda fake: cost(fake, fake_label),
        lambda _real, fake: cost(fake, 1.0).mean(),
        logit_of((real_label + fake_label) / 2),
    )
    return replace(loss, smoothed=partial(_of_labels, about, cost, logit_of))


LOSSES = {
    "ce": _of_labels(
        "cross entropy, non-saturating for the generator (Goodfellow et al. 2014, section 3)",
        lambda logits, label: label * softplus(-logits) + (1.0 - label) * softplus(logits),
        lambda share: math.log(share / (1.0 - share)),
    ),
    "lsgan": _of_labels(
        "least squares, with labels 1 and 0 (Mao et al. 2017, equation 9)",
        lambda logits, label: (logits - label).square() / 2,
        float,
    ),
    "wgan": _of_sides(
        "difference of mean logits (Arjovsky et al. 2017, algorithm 1); needs a clip or a gradient penalty",
        lambda real: -real,
        lambda fake: fake,
        lambda _real, fake: -fake.mean(),
    ),
    "hinge": _of_sides(
        "hinge of the discriminator, mean logit of the generator (Miyato et al. 2018, equations 16 and 17)",
        lambda real: relu(1.0 - real),
        lambda fake: relu(1.0 + fake),
        lambda _real, fake: -fake.mean(),
        boundary=0.0,
    ),
    "relativistic": AdversarialLoss(
        "relativistic pairing of real and fake images (Huang et al. 2024, R3GAN, equation 2)",
        lambda real, fake: softplus(fake - real).mean(),
        lambda real, fake: softplus(real - fake).mean(),
        needs_real=True,
    ),
}


def sum_over_domains(objective: Objective, real: Images, fake: Images) -> Tensor:
    """Return the sum of the domains' losses, of logits [B]: more domains do not change the gradient of one."""
    return torch.stack([objective(real[name], logits) for name, logits in fake.items()]).sum()


def adversarial_loss(name: str, real_label: float, fake_label: float) -> AdversarialLoss:
    """Return the loss of that name, with those labels in the discriminator's side if it has labels."""
    loss = LOSSES[name]
    return loss.smoothed(real_label, fake_label) if loss.smoothed else loss


@dataclass(frozen=True)
class Penalty:
    """A penalty on gradients at the images of a place, which is one of PLACES."""

    about: str
    place: str
    cost: Callable[[Images, Images], Tensor]
    """Images [B, C, H, W] that require gradients and their logits [B], by domain -> a scalar."""


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
