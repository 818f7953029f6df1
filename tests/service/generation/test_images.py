"""Files hold the pixels that they were given, and are written image by image."""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from PIL import Image

from service.generation import images
from service.generation.images import FRAME_MS, STORED_UP_TO, Encoding, Pixels
from tests.service.generation.conftest import complete

SHAPES = [(1, 1, 1), (8, 6, 1), (9, 5, 3), (28, 28, 1), (64, 64, 3)]
FRAME_SHAPES = [(1, 1, 1), (5, 3, 1), (12, 10, 1), (1, 1, 3), (5, 3, 3), (12, 10, 3), (64, 70, 3)]
Write = Callable[[list[Pixels]], Encoding]


def write_png(frames: list[Pixels]) -> Encoding:
    """Write an animated PNG, which says at its start how many frames it has."""
    return images.animated_png(frames, len(frames))


ANIMATIONS = {"GIF": images.gif, "WEBP": images.animated_webp, "PNG": write_png}


def noise(*shape: int, seed: int = 0) -> Pixels:
    """Return pixels of any values."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


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
    pixels = noise(*shape)
    assert np.array_equal(read(write(pixels), shape[2])[0], pixels)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (28, 28), (64, 100)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("blocks", [1, 2, 50])
def test_rows_of_blocks_are_the_png_of_all(shape: tuple[int, int], channels: int, blocks: int) -> None:
    """A PNG that is written block by block has the pixels of all blocks, however large it becomes."""
    parts = [noise(*shape, channels, seed=i) for i in range(blocks)]
    whole = np.concatenate(parts)
    file = complete(images.png_of_rows(iter(parts), len(whole)))
    assert np.array_equal(read(file, channels)[0], whole)
    if len(whole) * (1 + shape[1] * channels) <= STORED_UP_TO:
        assert file == images.png(whole)


@pytest.mark.parametrize("kind", ANIMATIONS)
@pytest.mark.parametrize("shape", FRAME_SHAPES, ids=str)
@pytest.mark.parametrize("count", [2, 3, 50])
def test_animations_hold_their_frames(kind: str, shape: tuple[int, int, int], count: int) -> None:
    """Pillow reads as many frames as were written, of the right size, which repeat and last as long as they should.

    Every pixel is read back; of a GIF only grey is exact.
    """
    frames = list(noise(count, *shape))
    file = complete(ANIMATIONS[kind](frames))
    opened = Image.open(io.BytesIO(file))
    assert (opened.format, opened.size) == (kind, (shape[1], shape[0]))
    assert (getattr(opened, "n_frames", 1), opened.info["loop"]) == (count, 0)
    for i in range(count):
        opened.seek(i)
        opened.load()
        assert opened.info["duration"] == FRAME_MS
    if kind != "GIF" or shape[2] == 1:
        found = read(file, shape[2])
        assert all(np.array_equal(a, b) for a, b in zip(found, frames, strict=True))


def test_every_frame_of_a_gif_has_its_own_colours() -> None:
    """A GIF has up to 256 colours a frame: few are exact, even if they differ from frame to frame."""
    frames = [np.full((6, 7, 3), (10 * i, 200, 30), np.uint8) for i in range(20)]
    for i, frame in enumerate(frames):
        frame[: i % 5] = (255, 3 * i, 0)
    frames += [frames[0], frames[0]]  # the palette of the first again, and an equal frame
    found = read(complete(images.gif(frames)), 3)
    assert len(found) == 22
    assert all(np.abs(a.astype(int) - b).max() <= 4 for a, b in zip(found, frames, strict=True))


def test_colours_of_a_gif_are_near_those_given() -> None:
    """Of many colours a GIF has the nearest of 256."""
    ramp = np.linspace(0, 255, 40).astype(np.uint8)
    frame = np.stack(np.meshgrid(ramp, ramp[::-1]), -1)
    frame = np.concatenate([frame, np.full((40, 40, 1), 90, np.uint8)], -1)
    (found,) = read(complete(images.gif([frame])), 3)
    assert np.abs(found.astype(int) - frame).mean() < 8


def test_frames_that_differ_in_little_are_all_there() -> None:
    """Equal frames, and frames that differ in one pixel, are frames of their own in every format."""
    frames = [np.zeros((5, 3, 1), np.uint8) for _ in range(4)]
    frames[2][4, 2] = 1
    for write in ANIMATIONS.values():
        found = read(complete(write(frames)), 1)
        assert all(np.array_equal(a, b) for a, b in zip(found, frames, strict=True))


@pytest.mark.parametrize("kind", [*ANIMATIONS, "rows", "zip"])
def test_files_are_written_step_by_step(kind: str) -> None:
    """One image is encoded at a step, so that a caller can stop: the next is not even asked for."""
    asked = itertools.count()

    def frames() -> Iterator[Pixels]:
        for _ in range(10):
            next(asked)
            yield noise(40, 50, 3)

    writers: dict[str, Callable[[Iterable[Pixels]], Encoding]] = {
        "GIF": images.gif,
        "WEBP": images.animated_webp,
        "PNG": lambda given: images.animated_png(given, 10),
        "rows": lambda given: images.png_of_rows(given, 400),
        "zip": lambda given: images.zipped((str(i), images.png(frame)) for i, frame in enumerate(given)),
    }
    encoding = writers[kind](frames())
    for _ in range(3):
        next(encoding)
    encoding.close()
    assert next(asked) == 3


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_equal_frames_give_equal_bytes(kind: str) -> None:
    """No clock and no memory of other files enters a file."""
    frames = list(noise(3, 5, 3, 3))
    first = complete(ANIMATIONS[kind](frames))
    complete(ANIMATIONS[kind](list(noise(3, 5, 3, 1))))
    assert complete(ANIMATIONS[kind](frames)) == first


def test_sheet_has_rows_of_latents_and_columns_of_domains() -> None:
    """Images of equal heights stand side by side, untouched."""
    a, b = noise(3, 4, 5, 1), noise(3, 4, 2, 1)
    rows = list(images.sheet_rows({"a": a, "b": b}))
    assert [row.shape for row in rows] == [(4, 7, 1)] * 3
    assert np.array_equal(rows[1][:, :5], a[1])
    assert np.array_equal(rows[2][:, 5:], b[2])


def test_sheet_centres_smaller_images_and_lifts_grey_to_colour() -> None:
    """Domains of different heights and channels share a sheet."""
    grey, colour = noise(2, 4, 3, 1), noise(2, 8, 5, 3)
    first, second = images.sheet_rows({"grey": grey, "colour": colour})
    assert first.shape == second.shape == (8, 8, 3)
    assert np.array_equal(first[2:6, :3], np.repeat(grey[0], 3, axis=2))
    assert not first[:2, :3].any()
    assert not first[6:, :3].any()
    assert np.array_equal(second[:, 3:], colour[1])


def test_archives_are_equal_for_equal_files() -> None:
    """No clock enters an archive."""
    files = {"1/a.png": b"a", "2/b.png": b"b"}
    packed = complete(images.zipped(files.items()))
    assert packed == complete(images.zipped(files.items()))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    arrays = {name: noise(2, 3) for name in ("a", "file", "allow_pickle")}  # also numpy's own parameter names
    assert complete(images.npz(arrays)) == complete(images.npz(arrays))
    with np.load(io.BytesIO(complete(images.npz(arrays)))) as loaded:
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    ("write", "side"),
    [(images.webp, images.WEBP_SIDE), (lambda pixels: complete(images.gif([pixels])), images.GIF_SIDE)],
)
def test_sides_are_as_long_as_a_format_allows(write: Callable[[Pixels], bytes], side: int) -> None:
    """One pixel more cannot be written."""
    assert write(np.zeros((1, side, 1), np.uint8))
    with pytest.raises((ValueError, OverflowError, struct.error)):
        write(np.zeros((1, side + 1, 1), np.uint8))
