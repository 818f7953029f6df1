"""Adversarial losses: siblings of one signature, by name.

Each has a discriminator's side (logits of real and of fake images, [B] each -> a scalar to minimise) and
a generator's side (the same arguments -> a scalar to minimise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """What each side minimises, and whether the generator's looks at real images."""

    about: str
    discriminator: Objective
    generator: Objective
    needs_real: bool = False


def _ce_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (softplus(-real) + softplus(fake)).mean()


def _ce_generator(_real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-fake).mean()


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(fake - real).mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(real - fake).mean()


LOSSES = {
    "ce": AdversarialLoss(
        "cross entropy, non-saturating for the generator (Goodfellow et al. 2014, section 3)",
        _ce_discriminator,
        _ce_generator,
    ),
    "relativistic": AdversarialLoss(
        "relativistic pairing of real and fake images (Huang et al. 2024, R3GAN, equation 2)",
        _relativistic_discriminator,
        _relativistic_generator,
        needs_real=True,
    ),
}
