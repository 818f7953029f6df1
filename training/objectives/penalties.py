"""Penalties on the gradient of the discriminator at images: siblings of one signature, by name.

Each has a place, the images that it looks at, and a cost of the gradients there: the sum over domains of each
domain's mean, as the adversarial loss is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.pixels.ranges import Images


@dataclass(frozen=True)
class Penalty:
    """Where the gradients are taken, a name in PLACES, and what they cost.

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
    """Draw a point on the line from each real image to a drawn one (Gulrajani et al. 2017, algorithm 1)."""
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
    "r2": Penalty("R2, at drawn images (Mescheder et al. 2018); R3GAN takes both", "fake", half_square),
    "gradient_penalty": Penalty("of WGAN-GP (Gulrajani et al. 2017)", "between", distance_from_one),
}
