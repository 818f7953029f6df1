"""Functions of pixels: augmentations (DiffAugment, Zhao et al. 2020), transforms and ranges.

Augmentations are differentiable, of images float [B, C, H, W], each at random. The discriminator's real and generated
inputs are augmented alike, so that it does not memorise a small set and the generator does not learn the augmentations.
Transforms make one domain from another: uint8 to uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d, pad

SHIFT = 1 / 8  # greatest translation, of a side
HOLE = 1 / 2  # side of a cutout, of the image's
REACH = (1 / 4, 1 / 8, 1 / 8, 1 / 5, 1 / 7, 1 / 7)  # turn, two scales, shear; moves, of half a side
KNOTS = 5  # along a side, of the grid that an elastic augmentation moves
STRETCH = 0.08  # standard deviation of a knot's move, of half a side
Images = dict[str, Tensor]  # by domain
RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of a last activation, and so of the images


def _color(images: Tensor) -> Tensor:
    """Move brightness by up to a half, scale saturation by 0 to 2 and contrast by 1/2 to 3/2."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, dtype=images.dtype, device=images.device)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2.0 * saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast + 0.5)


def _translation(images: Tensor) -> Tensor:
    """Move by up to an eighth of each side; the border is filled with 0."""
    batch, _, height, width = images.shape
    down, right = (round(side * SHIFT) for side in (height, width))
    padded = pad(images, (right, right, down, down)).movedim(1, -1)
    rows = _span(batch, 2 * down + 1, height, images.device)[:, :, None]
    columns = _span(batch, 2 * right + 1, width, images.device)[:, None, :]
    which = torch.arange(batch, device=images.device)[:, None, None]
    return padded[which, rows, columns].movedim(-1, 1)


def _cutout(images: Tensor) -> Tensor:
    """Set a rectangle of half of each side to 0, somewhere on the image and partly beyond it."""
    height, width = images.shape[2:]
    inside = _hole(images, height)[:, None, :, None] & _hole(images, width)[:, None, None, :]
    return images.masked_fill(inside, 0.0)


def _flip(images: Tensor) -> Tensor:
    """Mirror each image with a probability of 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def _affine(images: Tensor) -> Tensor:
    """Turn by up to 14 degrees, scale each side by up to an eighth, shear, and move by a fourteenth."""
    random = 2.0 * torch.rand(len(REACH), len(images), device=images.device).to(images) - 1.0
    turn, wider, higher, slant, right, down = (reach * shares for reach, shares in zip(REACH, random, strict=True))
    rows = [
        torch.stack([(1.0 + wider) * turn.cos(), slant - turn.sin(), right], 1),
        torch.stack([turn.sin(), (1.0 + higher) * turn.cos(), down], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _elastic(images: Tensor) -> Tensor:
    """Deform elastically (Simard et al. 2003, section 2), by interpolated random moves of knots in place of blurred."""
    size = list(images.shape)
    still = torch.eye(2, 3, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    moves = STRETCH * torch.randn(len(images), 2, KNOTS, KNOTS, device=images.device).to(images)
    moves = interpolate(moves, size[2:], mode="bicubic", align_corners=True).movedim(1, -1)
    grid = affine_grid(still, size, align_corners=False) + moves
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _hole(images: Tensor, side: int) -> Tensor:
    """Return the mask of the hole along a side: bool [B, side]."""
    length = round(side * HOLE)
    first = torch.randint(side + 1, (len(images), 1), device=images.device) - length // 2
    places = torch.arange(side, device=images.device)
    return (places >= first) & (places < first + length)


def _span(batch: int, choices: int, length: int, device: torch.device) -> Tensor:
    """Return `length` successive indices for each image, from a random one of `choices` on: [B, length]."""
    return torch.randint(choices, (batch, 1), device=device) + torch.arange(length, device=device)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
    "flip": _flip,
    "affine": _affine,
    "elastic": _elastic,
}


def _edge(images: Tensor) -> Tensor:
    """Dilate by 3x3 and subtract the image, as the official code makes its edges."""
    grey = images.float()
    return (max_pool2d(grey, 3, stride=1, padding=1) - grey).to(torch.uint8)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "edge": _edge,
    "negative": lambda images: 255 - images,
    "rotate": lambda images: images.rot90(1, (2, 3)),  # by 90 degrees, counter-clockwise
}


def transform(images: Tensor, name: str, batch: int = 4096) -> Tensor:
    """Apply the transform of that name, a batch at a time so that float copies stay small."""
    return torch.cat([TRANSFORMS[name](part) for part in images.split(batch)])


def to_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map images from the network's range to uint8, rounding to the nearest."""
    low, high = image_range
    return ((images - low) * (255 / (high - low)) + 0.5).clamp(0, 255).to(torch.uint8)


def between_ranges(given: tuple[float, float], wanted: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """Return a differentiable function that maps float images of one range to another."""
    (low, high), (least, most) = given, wanted
    scale = (most - least) / (high - low)
    return lambda images: (images - low) * scale + least


def from_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Map uint8 images to the network's range."""
    low, high = image_range
    return images.float() * ((high - low) / 255) + low
