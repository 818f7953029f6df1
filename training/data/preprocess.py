"""How one image becomes the network's: grey or colour, margin, crop, size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageMode, ImageOps

from training.config.data import DomainConfig
from training.errors import DataError

MODES = {1: "L", 3: "RGB"}
BYTES = ("|u1", "|b1")  # numpy's names of the values of a mode: bytes and bits


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of 16 bits; Pillow has PGM and PNG of 16 bits in 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))


def in_mode(image: Image.Image, channels: int) -> Image.Image:
    """Return an image in grey or colour; what can be seen through lies on black.

    Grey of 16 bits is scaled, 0 to 65535 becoming 0 to 255. Raises DataError for floats and whole numbers of
    32 bits: nobody knows their range.
    """
    if is_deep(image):
        image = Image.fromarray(np.rint(np.asarray(image, np.float32) * (255 / 65535)).astype(np.uint8))
    if image.mode == "LAB":  # which becomes grey by way of RGB alone
        image = image.convert("RGB")
    if ImageMode.getmode(image.mode).typestr not in BYTES:
        raise DataError(f"holds values of mode {image.mode}, not bytes: save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert(MODES[channels])


def fit(image: Image.Image, size: tuple[int, int], domain: DomainConfig) -> NDArray[np.uint8]:
    """Return an image as uint8 [H, W, C] of that height and width. Raises DataError, as `in_mode` does."""
    height, width = size
    image = ImageOps.expand(in_mode(image, domain.channels), domain.margin)
    if domain.crop is None:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    else:
        border = (1 - domain.crop) / 2
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC, border)
    return np.asarray(image, np.uint8).reshape(height, width, domain.channels)
