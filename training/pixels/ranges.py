"""Images of several domains, and the way between bytes and the range of a network."""

from __future__ import annotations

import torch
from torch import Tensor

Images = dict[str, Tensor]  # by domain

RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of a last activation, and so of the images


def to_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map images from the network's range to uint8, rounding to the nearest."""
    low, high = image_range
    return ((images - low) * (255 / (high - low)) + 0.5).clamp(0, 255).to(torch.uint8)


def from_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map uint8 images to the network's range."""
    low, high = image_range
    return images.float() * ((high - low) / 255) + low
