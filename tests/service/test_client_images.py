"""Images that the Python client sends, of arrays and PIL images."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Client
from service.errors import OtherError

Send = Callable[[Any], Image.Image]
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def sent(answering: Callable[..., list[httpx.Request]]) -> Send:
    """Return what translates an image, and returns the one that the service receives."""
    requests = answering(httpx.Response(418))

    def send(image: Any) -> Image.Image:
        with pytest.raises(OtherError), Client("http://service") as client:
            client.translate(image)
        url = json.loads(requests[0].content)["image"]
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    return send


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_arrays_are_sent_as_they_are(sent: Send, shape: tuple[int, ...]) -> None:
    """Grey with and without channels, RGB and RGBA."""
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(np.asarray(sent(pixels)), pixels.squeeze())


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 6), np.float32),
        np.zeros((4, 6, 3), bool),
        np.zeros((4, 6), np.int64),
        np.zeros((2, 4, 6, 3), np.uint8),
        np.zeros((4, 6, 5), np.uint8),
        np.zeros((0, 6), np.uint8),
        np.zeros((4, 6, 0), np.uint8),
        np.zeros(6, np.uint8),
    ],
)
def test_arrays_that_are_no_image_are_refused(pixels: Any) -> None:
    """The error names type, shape and what is allowed."""
    found = re.escape(
        f"image is an array of {pixels.dtype} {list(pixels.shape)}: allowed is uint8 [H, W] or [H, W, 1 to 4]"
    )
    with pytest.raises(ValueError, match=found), Client("http://service") as client:
        client.translate(pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_that_png_holds_stay(sent: Send, mode: str) -> None:
    """The pixels are not changed."""
    image = Image.fromarray(COLOURS).convert(mode)
    assert np.array_equal(np.asarray(sent(image).convert("RGBA")), np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_grey_of_16_bits_stays(sent: Send, mode: str) -> None:
    """The service scales it to 8 bits."""
    levels = np.array([[0, 255, 256], [4660, 65279, 65535]], ">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (3, 2), levels.tobytes())
    assert np.array_equal(np.asarray(sent(image)), levels)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_other_modes_become_rgb(sent: Send, mode: str) -> None:
    """As PIL converts them."""
    image = Image.merge(
        mode, [Image.fromarray(COLOURS[..., i % 3]) for i in range(len(Image.new(mode, (1, 1)).getbands()))]
    )
    received = sent(image)
    assert received.mode == "RGB"
    assert np.array_equal(np.asarray(received), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["PA", "RGBa"])
def test_transparency_stays(sent: Send, mode: str) -> None:
    """Transparent pixels stay transparent when an image becomes a PNG."""
    image = Image.fromarray(COLOURS)
    image.putalpha(Image.fromarray(COLOURS[..., 0]))
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert np.array_equal(np.asarray(sent(image)), np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize("mode", ["F", "I", "I;16N"])
def test_modes_of_other_values_are_refused(mode: str) -> None:
    """Their range is unknown; the error says what to do."""
    with pytest.raises(ValueError, match=f"mode {mode}: allowed are .*scale it to levels of 0 to 255"):
        Client("http://service").translate(Image.new(mode, (6, 4)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_sent_upright(sent: Send, orientation: int) -> None:
    """PNG has no room for the orientation of a photo, so its pixels are turned; PIL's own TIFF reader does the same."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(file, "TIFF", exif=exif)
    upright = np.asarray(Image.open(file))
    Image.fromarray(COLOURS).save(file := io.BytesIO(), "WEBP", lossless=True, exif=exif)
    assert np.array_equal(np.asarray(sent(Image.open(file))), upright)
    assert upright.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))
