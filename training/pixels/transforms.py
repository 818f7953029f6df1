"""How a domain is made of a data set: transforms of uint8 images [N, C, H, W], by name.

The same functions say what a pair should look like: where one domain is a transform of another, applying
it to the other's image must give this one's (pixel agreement, in `measures`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

Transform = Callable[[Tensor], Tensor]


def _identity(images: Tensor) -> Tensor:
    return images


def _edge(images: Tensor) -> Tensor:
    """Dilate by 3x3 and subtract the image, as the official code makes its edges."""
    grey = images.float()
    return (max_pool2d(grey, 3, stride=1, padding=1) - grey).to(torch.uint8)


def _negative(images: Tensor) -> Tensor:
    return 255 - images


def _rotate(images: Tensor) -> Tensor:
    """Turn by 90 degrees counter-clockwise."""
    return images.rot90(1, (2, 3))


TRANSFORMS: dict[str, Transform] = {
    "identity": _identity,
    "edge": _edge,
    "negative": _negative,
    "rotate": _rotate,
}


def transform(images: Tensor, name: str, batch: int = 4096) -> Tensor:
    """Apply the transform of that name, a batch at a time so that float copies stay small."""
    return torch.cat([TRANSFORMS[name](part) for part in images.split(batch)])
