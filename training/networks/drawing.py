"""What a generator draws of the latents that the service would draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from service.latents import draw_latent
from service.metadata import Prior
from training.networks.coupled import CoupledGenerator
from training.pixels.ranges import Images, to_bytes


def latents_of_seeds(prior: Prior, seeds: range) -> Tensor:
    """Draw the first latent of each seed, as the service would: float32 [len(seeds), Z]."""
    return torch.from_numpy(np.stack([draw_latent(prior, seed) for seed in seeds]))


@torch.inference_mode()
def draw(generator: CoupledGenerator, latents: Tensor, batch: int = 256) -> Images:
    """Draw the pairs of latents [B, Z] in evaluation mode: {domain: uint8 [B, C, H, W]} on the CPU."""
    was_training, device = generator.training, next(generator.parameters()).device
    generator.eval()
    parts = [_to_bytes(generator(part.to(device)), generator.image_range) for part in latents.split(batch)]
    generator.train(was_training)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _to_bytes(images: Images, image_range: tuple[float, float]) -> Images:
    return {name: to_bytes(batch, image_range).cpu() for name, batch in images.items()}
