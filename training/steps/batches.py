"""What a step begins with: real images and latents, drawn at random. Axes: B batch, Z latent, C, H, W."""

from __future__ import annotations

import torch
from torch import Tensor

from service.metadata import Prior
from training.pixels.ranges import Images, from_bytes


def draw_real(
    images: Images,
    batch_size: int,
    image_range: tuple[float, float],
    generator: torch.Generator | None = None,
) -> Images:
    """Draw float images [B, C, H, W] in the range from each domain's uint8 [N, C, H, W]."""
    return draw_labelled(images, {}, batch_size, image_range, generator)[0]


def draw_labelled(
    images: Images,
    labels: Images,
    batch_size: int,
    image_range: tuple[float, float],
    generator: torch.Generator | None = None,
) -> tuple[Images, Images]:
    """Draw images as `draw_real` does, and their labels [B] in the domains that have labels [N]."""
    batches, classes = {}, {}
    for name, domain in images.items():
        rows = torch.randint(len(domain), (batch_size,), device=domain.device, generator=generator)
        batches[name] = from_bytes(domain[rows], image_range)
        if name in labels:
            classes[name] = labels[name][rows]
    return batches, classes


def draw_latents(
    prior: Prior, batch_size: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw latents [B, Z] of the prior."""
    shape = (batch_size, prior.latent_dim)
    if prior.distribution == "uniform":
        return torch.rand(shape, device=device, generator=generator) * 2 - 1
    return torch.randn(shape, device=device, generator=generator)
