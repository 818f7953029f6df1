"""Penalties on the gradient of the discriminator at its images: siblings of one signature, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Penalty = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]


def gradient_norm(images: dict[str, Tensor], logits: dict[str, Tensor]) -> Tensor:
    """Half the mean squared norm of d logit / d image over all images (Mescheder et al. 2018, equation 9).

    `images` [B, C, H, W] by domain need `requires_grad` before `logits` [B] are computed from them.
    """
    total = torch.stack([batch.sum() for batch in logits.values()]).sum()
    gradients = torch.autograd.grad(total, list(images.values()), create_graph=True)
    return torch.cat([gradient.square().sum((1, 2, 3)) for gradient in gradients]).mean() / 2


PENALTIES: dict[str, Penalty | None] = {"none": None, "r1": gradient_norm}
