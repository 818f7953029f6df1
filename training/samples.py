"""Sheets of samples, rows latents and columns domains, and films of sheets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from service.latents import draw_latent
from service.metadata import Prior
from training.checkpoint import write_whole
from training.networks import CoupledGenerator, Images

FRAME, LAST_FRAME = 200, 2000  # ms of a sheet in a film


def latents_of_seeds(prior: Prior, seeds: range) -> Tensor:
    """Draw the first latent of each seed, as the service would: float32 [len(seeds), Z]."""
    return torch.from_numpy(np.stack([draw_latent(prior, seed) for seed in seeds]))


def to_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map images from the network's range to uint8, rounding to the nearest."""
    low, high = image_range
    return ((images - low) * (255 / (high - low)) + 0.5).clamp(0, 255).to(torch.uint8)


def from_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map uint8 images to the network's range."""
    low, high = image_range
    return images.float() * ((high - low) / 255) + low


@torch.inference_mode()
def draw(generator: CoupledGenerator, latents: Tensor, batch: int = 256) -> Images:
    """Draw the pairs of latents [B, Z] in evaluation mode: {domain: uint8 [B, C, H, W]} on the CPU."""
    was_training = generator.training
    generator.eval()
    parts = [generator(part) for part in latents.split(batch)]
    generator.train(was_training)
    return {
        name: torch.cat([to_bytes(part[name], generator.image_range).cpu() for part in parts])
        for name in parts[0]
    }


def sheet(pairs: Images, columns: int = 1) -> Image.Image:
    """Lay pairs out as rows of a sheet, one domain beside the other, in so many columns of pairs.

    The last row is filled up with black.
    """
    wide = max(images.shape[1] for images in pairs.values())
    strips = torch.cat([images.expand(-1, wide, -1, -1) for images in pairs.values()], dim=3)
    strips = torch.cat([strips, strips.new_zeros(-len(strips) % columns, *strips.shape[1:])])
    rows = [torch.cat(list(row), dim=2) for row in strips.split(columns)]
    pixels = torch.cat(rows, dim=1).movedim(0, -1).squeeze(-1)
    return Image.fromarray(pixels.numpy())


def save_sheet(pairs: Images, file: Path, columns: int = 1, scale: int = 1) -> None:
    """Write a sheet as a PNG, its pixels enlarged `scale` times."""
    image = sheet(pairs, columns)
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    write_whole(file, lambda aside: enlarged.save(aside, format="PNG"))


def save_film(sheets: Sequence[Path], file: Path) -> None:
    """Write a GIF that shows the sheets one after the other, and the last one longer."""
    with ExitStack() as opened:
        first, *others = [opened.enter_context(Image.open(sheet)) for sheet in sheets]
        durations = [FRAME] * len(others) + [LAST_FRAME]
        write_whole(
            file,
            lambda aside: first.save(
                aside, format="GIF", save_all=True, append_images=others, duration=durations, loop=0
            ),
        )
