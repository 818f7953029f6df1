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
    parts = [generator(part.to(device)) for part in latents.split(batch)]
    generator.train(was_training)
    return {
        name: torch.cat([to_bytes(part[name], generator.image_range).cpu() for part in parts])
        for name in parts[0]
    }
