"""Files hold the pixels that they were given."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from service.generation import images
from service.generation.images import Pixels

SHAPES = [(1, 1, 1), (8, 6, 1), (9, 5, 3), (28, 28, 1), (64, 64, 3)]


def draw(*shape: int) -> Pixels:
    """Draw pixels of any values."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def read(file: bytes, channels: int) -> list[Pixels]:
    """Read every frame [H, W, C] of a file with Pillow."""
    image = Image.open(io.BytesIO(file))
    frames = []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        frames.append(pixels.reshape(*pixels.shape[:2], channels))
    return frames


@pytest.mark.parametrize("write", [images.png, images.webp])
@pytest.mark.parametrize("shape", SHAPES)
def test_still_images_are_lossless(write: Callable[[Pixels], bytes], shape: tuple[int, ...]) -> None:
    """Pillow reads back every pixel of a PNG and a WebP, grey and colour, of any size."""
    pixels = draw(*shape)
    assert np.array_equal(read(write(pixels), shape[2])[0], pixels)


@pytest.mark.parametrize(
    ("write", "channels"),
    [
        (images.gif, 1),
        (images.animated_webp, 1),
        (images.animated_webp, 3),
        (images.animated_png, 1),
        (images.animated_png, 3),
    ],
)
def test_animations_are_lossless(write: Callable[[Sequence[Pixels]], bytes], channels: int) -> None:
    """Every frame is read back whole; a GIF has grey exactly."""
    frames = list(draw(4, 12, 10, channels))
    found = read(write(frames), channels)
    assert len(found) == 4
    assert all(np.array_equal(a, b) for a, b in zip(found, frames, strict=True))


def test_colour_gif_has_every_frame() -> None:
    """A GIF of colours has 256 of them a frame, near the ones given."""
    frames = [np.full((6, 6, 3), (10 * i, 200, 30), np.uint8) for i in range(3)]
    found = read(images.gif(frames), 3)
    assert len(found) == 3
    assert all(np.abs(a.astype(int) - b).max() <= 4 for a, b in zip(found, frames, strict=True))


def test_sheet_has_rows_of_latents_and_columns_of_domains() -> None:
    """Images of equal sizes stand side by side, untouched."""
    a, b = draw(3, 4, 5, 1), draw(3, 4, 2, 1)
    laid = images.sheet({"a": a, "b": b})
    assert laid.shape == (12, 7, 1)
    assert np.array_equal(laid[4:8, :5], a[1])
    assert np.array_equal(laid[8:, 5:], b[2])


def test_sheet_centres_smaller_images_and_lifts_grey_to_colour() -> None:
    """Domains of different heights and channels share a sheet."""
    grey, colour = draw(2, 4, 3, 1), draw(2, 8, 5, 3)
    laid = images.sheet({"grey": grey, "colour": colour})
    assert laid.shape == (16, 8, 3)
    assert np.array_equal(laid[2:6, :3], np.repeat(grey[0], 3, axis=2))
    assert not laid[:2, :3].any()
    assert np.array_equal(laid[8:, 3:], colour[1])


def test_frames_are_the_rows_of_a_sheet() -> None:
    """A frame has the domains of one latent side by side."""
    a, b = draw(3, 4, 5, 1), draw(3, 6, 2, 1)
    found = images.frames({"a": a, "b": b})
    assert [frame.shape for frame in found] == [(6, 7, 1)] * 3
    assert np.array_equal(found[2][1:5, :5], a[2])


def test_archives_are_equal_for_equal_files() -> None:
    """No clock enters an archive."""
    files = {"1/a.png": b"a", "2/b.png": b"b"}
    packed = images.zipped(files)
    assert packed == images.zipped(files)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    arrays = {name: draw(2, 3) for name in ("a", "file", "allow_pickle")}  # whatever numpy's own words are
    assert images.npz(arrays) == images.npz(arrays)
    with np.load(io.BytesIO(images.npz(arrays))) as loaded:
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    ("write", "most"),
    [(images.webp, images.WEBP_SIDE), (lambda pixels: images.gif([pixels]), images.GIF_SIDE)],
)
def test_sides_are_as_long_as_a_format_has_room_for(write: Callable[[Pixels], bytes], most: int) -> None:
    """One pixel more cannot be written."""
    assert write(np.zeros((1, most, 1), np.uint8))
    with pytest.raises((ValueError, OverflowError, struct.error)):
        write(np.zeros((1, most + 1, 1), np.uint8))
