"""Patches of other images blended into a domain's own, as MNIST-M blends photographs into digits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.config.domain import PatchesConfig, Use
from training.errors import DataError
from training.images.cells import decode
from training.images.fitting import in_mode
from training.images.sources import open_rows

Pixels = NDArray[np.uint8]


def blend(images: Pixels, patches: PatchesConfig, use: Use) -> Pixels:
    """Return |patch - image| for images uint8 [N, H, W, C] (Ganin & Lempitsky 2015, section 4).

    Each has a patch of its own: a random part, of its height and width, of a random image that the source
    has for that use; one seed always gives the same. Raises DataError where the source cannot be read or an
    image of it is smaller than a patch.
    """
    drawn = _draw(patches, use, images.shape)
    return np.maximum(images, drawn) - np.minimum(images, drawn)


def _draw(patches: PatchesConfig, use: Use, shape: tuple[int, ...]) -> Pixels:
    """Draw patches uint8 [N, H, W, C], decoding each image of the source once."""
    table = open_rows(patches, use)
    random = np.random.default_rng(patches.seed)
    chosen = random.integers(len(table), size=shape[0])
    corners = random.random((shape[0], 2))
    order = np.argsort(chosen, kind="stable")
    rows, starts = np.unique(chosen[order], return_index=True)
    drawn = np.empty(shape, np.uint8)
    cells = table.select(rows)[patches.image_column]
    for row, cell, wanting in zip(rows, cells, np.split(order, starts[1:]), strict=True):
        try:
            photo = np.asarray(in_mode(decode(cell), shape[3]))
            for image in wanting:
                drawn[image] = _cut(photo, shape[1:], corners[image])
        except DataError as error:
            raise DataError(f"image {cell['path'] or f'number {row}'} of {patches.source!r} {error}") from error
    return drawn


def _cut(photo: Pixels, shape: tuple[int, ...], corner: NDArray[np.float64]) -> Pixels:
    """Cut a patch [H, W, C] from a photograph [H', W'(, C)], at that share of the room there is."""
    height, width, _ = shape
    room = np.array(photo.shape[:2]) - (height, width) + 1
    if room.min() < 1:
        raise DataError(f"has {photo.shape[0]} x {photo.shape[1]} pixels, and patches {height} x {width}")
    top, left = (corner * room).astype(int)
    return photo[top : top + height, left : left + width].reshape(shape)
