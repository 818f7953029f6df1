"""Translation by inversion: the latent whose image is nearest to a given one (Liu & Tuzel 2016, section 5).

Axes: N images, R restarts, Z latent, C channels, H, W.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from service.metadata import Prior
from training.networks.coupled import CoupledGenerator, latents_of_seeds

CANDIDATES = 512  # latents of the first seeds, the nearest of which are where the descent starts
REACH = {"normal": 3.0, "uniform": 1.0}  # greatest value of a latent that is searched, by the prior
RATE = 0.1  # Adam's first step size, which falls to nothing along a cosine
GROUP = 16  # images at a time


class Inverted(NamedTuple):
    """The latents found, float32 [N, Z], and how far their images are from the given ones, [N].

    A distance is the root of the mean squared difference of values, of 1 between black and white; `before`
    is that of the nearest candidate, where the descent starts.
    """

    latents: Tensor
    distances: Tensor
    before: Tensor


def invert(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int, steps: int
) -> Inverted:
    """Find the latents of images float [N, C, H, W] of a domain, in the generator's range, by gradient descent.

    The squared distance of pixels is minimised by Adam from several starts for each image, the nearest of
    many candidates; the best result counts. Equal images give equal latents on one machine.
    """
    frozen = [weight for weight in generator.parameters() if weight.requires_grad]
    was_training = generator.training
    generator.eval().requires_grad_(False)
    parts = [_invert(generator, domain, part, prior, restarts, steps) for part in images.split(GROUP)]
    generator.train(was_training)
    for weight in frozen:
        weight.requires_grad_()
    return Inverted(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.enable_grad()  # also if the caller has none
def _invert(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int, steps: int
) -> Inverted:
    low, high = generator.image_range
    starts, before = _starts(generator, domain, images, prior, restarts)
    target = images.repeat_interleave(restarts, 0)
    latents = starts.clone().requires_grad_()
    optimiser = torch.optim.Adam([latents], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        (_draw(generator, domain, latents) - target).square().mean((1, 2, 3)).sum().backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            latents.clamp_(-REACH[prior.distribution], REACH[prior.distribution])
    with torch.no_grad():
        squares = (_draw(generator, domain, latents) - target).square().mean((1, 2, 3))
        distances, best = (squares.sqrt() / (high - low)).reshape(len(images), restarts).min(1)
        found = latents.reshape(len(images), restarts, -1)[torch.arange(len(images)), best]
    return Inverted(found, distances, before)


@torch.no_grad()
def _starts(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int
) -> tuple[Tensor, Tensor]:
    """Return the candidates nearest to each image, [N * R, Z], and the distance of the nearest, [N]."""
    low, high = generator.image_range
    latents = latents_of_seeds(prior, range(max(CANDIDATES, restarts))).to(images)
    drawn = torch.cat([_draw(generator, domain, part) for part in latents.split(64)])
    distances = torch.cdist(images.flatten(1), drawn.flatten(1)) / math.sqrt(images[0].numel()) / (high - low)
    nearest = distances.topk(restarts, dim=1, largest=False)
    return latents[nearest.indices.flatten()], nearest.values[:, 0]


def _draw(generator: CoupledGenerator, domain: str, latents: Tensor) -> Tensor:
    """Return the images [B, C, H, W] of one domain alone."""
    images: Tensor = generator.heads[domain](generator.trunk(latents[:, :, None, None]))
    return images
