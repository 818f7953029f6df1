"""Untrusted image files: bounded before they are decoded, and fitted as training fits its images.

Axes: H height, W width, C channels.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageMode, ImageOps, UnidentifiedImageError, _imaging

from service.errors import DeadlineExceeded, FieldError, InvalidRequest, QueueFull, RequestError, TooLarge
from service.generation.images import Pixels
from service.metadata import Domain
from service.telemetry.metrics import Metrics

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MODES = {1: "L", 3: "RGB"}
BYTES = ("|u1", "|b1")  # numpy's names of the values of a mode: bytes and bits
MAX_PIXELS = 2**24  # of one image, which take up to 16 bytes each while they are converted
MAX_WAITING = 2**26  # bytes of the files that wait or are decoded
MAX_METADATA = 2**20  # bytes that may be read before the pixels
MAX_READS = 2**15  # calls, which tiny parts of a file would multiply
START_OF_SCAN, END_OF_IMAGE = b"\xda", b"\xd9"
MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # of a JPEG, after any number of fill bytes; none within a scan
MAX_SCANS = 32  # of a progressive JPEG, each of which takes the time of a whole image
ORIENTATION = 0x0112  # EXIF's tag
PHOTOMETRIC, *TILE_SIDES = 0x0106, 0x0142, 0x0143  # TIFF's tags
EXIF = b"Exif\0\0"
FEW_BITS = {"L;2": 85, "L;4": 17}  # of a grey PNG, whose levels Pillow multiplies, but not the transparent one
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LATE = "the image was not decoded before the deadline"
Stopped = Callable[[], bool]
Fit = Literal["crop", "pad"]


class Fitting(NamedTuple):
    """The steps from an image to one of a domain: black margin in pixels, then the way to the domain's size.

    `crop` is the share of the middle that is kept, in the domain's shape; without it the image is stretched.
    """

    domain: Domain
    margin: int = 0
    crop: float | None = None
    pad: bool = False
    invert: bool = False
    """Whether light and dark are exchanged first."""


class ImageDecoder:
    """Decodes files in threads of its own, with a deadline; it belongs to an event loop."""

    def __init__(self, threads: Executor, metrics: Metrics) -> None:
        self._threads, self._metrics = threads, metrics
        self._waiting = 0  # bytes
        warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
        Image.init()  # not in several threads at once
        with suppress(AttributeError, OSError):  # libtiff prints errors, which are exceptions as well, on stderr
            ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

    async def decode(self, file: bytes, fittings: Sequence[Fitting], deadline: float) -> tuple[list[Pixels], float]:
        """Return the image as each fitting makes it, uint8 [H, W, C], and the seconds that it took.

        `deadline` is in the event loop's time. Raises QueueFull, DeadlineExceeded, and what `read_image` raises.
        """
        if self._waiting and self._waiting + len(file) > MAX_WAITING:
            self._metrics.rejected.labels("queue_full").inc()
            detail = f"{self._waiting} bytes of images wait to be decoded; at most {MAX_WAITING} may. Retry in 1 s."
            raise QueueFull(detail, headers={"Retry-After": "1"})
        begun, stopped = time.perf_counter(), threading.Event()
        self._waiting += len(file)
        try:
            async with asyncio.timeout_at(deadline):
                loop = asyncio.get_running_loop()
                images = await loop.run_in_executor(self._threads, fit_all, file, fittings, stopped.is_set)
        except TimeoutError:
            self._metrics.rejected.labels("deadline").inc()
            raise DeadlineExceeded(LATE) from None
        finally:
            stopped.set()
            self._waiting -= len(file)
        return images, time.perf_counter() - begun


def fit_all(file: bytes, fittings: Sequence[Fitting], stopped: Stopped) -> list[Pixels]:
    """Return the image of a file as each fitting makes it, unless `stopped` returns True. Raises as `read_image`."""
    image, fitted = read_image(file, stopped), list[Pixels]()
    for one in fittings:
        if stopped():
            raise DeadlineExceeded(LATE)
        fitted.append(fit(image, one))
    return fitted


def read_image(file: bytes, stopped: Stopped = lambda: False) -> Image.Image:
    """Return the image of a file, upright: of several the first, grey of 16 bits as 8.

    Raises InvalidRequest for what is none, is damaged or has values of 32 bits, and TooLarge over a limit.
    """
    if not file:
        raise _unreadable(file, "the image is empty")
    bounded = BoundedFile(file, stopped)
    try:
        exif = bounded.strip_jpeg()
        opened = Image.open(bounded, formats=FORMATS)
        _check_size(opened)
        bounded.left = len(file) + MAX_METADATA
        if "transparency" in opened.info and (bits := opened.tile[0][3]) in FEW_BITS:
            opened.info["transparency"] *= FEW_BITS[bits]
        opened.load()
        image: Image.Image = opened
        if image.mode == "LAB":  # which becomes grey by way of RGB alone
            image = image.convert("RGB")
        turn = TURNS.get(_orientation(exif or image.info.get("exif", b"")))
        image = _as_8_bits(image).transpose(turn) if turn is not None else _as_8_bits(image)
    except RequestError:
        raise
    except UnidentifiedImageError:
        starts = {name: Image.OPEN[name][1] for name in FORMATS}
        damaged = next((name for name, accepts in starts.items() if accepts and accepts(file[:16])), None)
        why = f"the {damaged} is damaged; send it anew" if damaged else "the image is of no known format"
        raise _unreadable(file, why) from None
    except Image.DecompressionBombError:
        raise _too_many_pixels("too many pixels") from None
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise _unreadable(file, f"the image cannot be read: {error}"[:200]) from error
    if ImageMode.getmode(image.mode).typestr not in BYTES:
        raise _unreadable(file, f"the image has values of mode {image.mode}; save it with 8 or 16 bits a channel")
    return image


class BoundedFile(io.BytesIO):
    """A file that a decoder may read so often and so much of, until it is stopped."""

    def __init__(self, content: bytes, stopped: Stopped) -> None:
        super().__init__(content)
        self._stopped, self._reads = stopped, MAX_READS
        at_once = content[:4] == b"RIFF"  # WebP; of the others the metadata come first
        self.left = (len(content) if at_once else MAX_METADATA) + 2**10  # to recognise the format

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes. Raises TooLarge over a limit, and DeadlineExceeded when it is stopped."""
        if self._stopped():
            raise DeadlineExceeded(LATE)
        content = super().read(size)
        self.left -= len(content)
        self._reads -= 1
        if self.left < 0 or self._reads < 0:
            allowed = f"at most {MAX_METADATA} bytes of metadata, and {MAX_READS} parts"
            raise TooLarge(f"an image file has {allowed}; save it anew", [FieldError("/image", "more", allowed)])
        return content

    def strip_jpeg(self) -> bytes:
        """Drop a JPEG's metadata, all but the colour transform, and return its EXIF.

        Pillow copies what each of 65,535 tags points to, which may be all of the file.
        """
        content, exif, at = self.getvalue(), b"", 2
        if not content.startswith(b"\xff\xd8\xff"):
            return exif
        parts = [content[:2]]
        for _ in range(MAX_READS):
            marker = MARKER.match(content, at)
            kind, start = (marker[1], marker.end()) if marker else (b"", at)
            end = start + int.from_bytes(content[start : start + 2])
            if kind < b"\xc0" or end < start + 2:
                raise ValueError("a segment of the JPEG is damaged")
            if kind == START_OF_SCAN:
                break
            if kind == b"\xe1" and not exif and content.startswith(EXIF, start + 2):
                exif = content[start + 2 : end]
            if not b"\xe0" <= kind <= b"\xef" or kind == b"\xee":
                parts.append(content[at:end])
            at = end
        if not 1 <= _count_scans(content, at) <= MAX_SCANS:
            raise ValueError(f"a JPEG has 1 to {MAX_SCANS} scans")
        super().__init__(b"".join((*parts, content[at:])))
        return exif


def _count_scans(content: bytes, at: int) -> int:
    """Count the scans of a JPEG, up to one too many; what follows the image, as phones append films, is not of it."""
    scans = 0
    for _ in range(MAX_READS):
        marker = MARKER.search(content, at)
        if marker is None or marker[1] == END_OF_IMAGE or scans > MAX_SCANS:
            return scans
        scans += marker[1] == START_OF_SCAN
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return MAX_SCANS + 1


def _check_size(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})  # of a TIFF, whose decoder takes memory for a tile at once
    for width, height in (image.size, [tags.get(tag, 1) for tag in TILE_SIDES]):
        if width * height > MAX_PIXELS:
            raise _too_many_pixels(f"{width} x {height} pixels")


def _too_many_pixels(found: str) -> TooLarge:
    allowed = f"at most {MAX_PIXELS} pixels"
    detail = f"the image has {found}; {allowed} are allowed: scale it down"
    return TooLarge(detail, [FieldError("/image", found, allowed)])


def _unreadable(file: bytes, why: str) -> InvalidRequest:
    wrong = FieldError("/image", f"{len(file)} bytes that begin with {file[:8].hex()}", FORMATS)
    return InvalidRequest(f"{why}; allowed are {', '.join(FORMATS)}", [wrong])


def _as_8_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits, 0 to 65535, as grey of 8 bits, and a level that is transparent as such."""
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")):
        return image
    levels = np.asarray(image, np.float32)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is 0, which Pillow inverts at 8 bits alone
        levels = 65535 - levels
    grey = Image.fromarray(np.rint(levels * (255 / 65535)).astype(np.uint8))
    if (clear := image.info.get("transparency")) is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (levels != clear))))


def _orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of EXIF data, 1 (upright) if it cannot be found."""
    data = exif.removeprefix(EXIF)
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    for i in range(int.from_bytes(data[start : start + 2], order)):
        entry = data[start + 2 + 12 * i : start + 14 + 12 * i]
        if int.from_bytes(entry[:2], order) == ORIENTATION:
            return int.from_bytes(entry[8:10], order)
    return 1


def fit(image: Image.Image, fitting: Fitting) -> Pixels:
    """Return an image of `read_image` as one of a domain, uint8 [H, W, C]; what can be seen through becomes black."""
    domain, size = fitting.domain, (fitting.domain.width, fitting.domain.height)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white" if fitting.invert else "black")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    image = image.convert(MODES[domain.channels])
    image = ImageOps.expand(ImageOps.invert(image) if fitting.invert else image, fitting.margin)
    if fitting.pad:
        factor = max(image.width / size[0], image.height / size[1])
        inner = max(1, round(image.width / factor)), max(1, round(image.height / factor))  # of a strip, too, a line
        image = ImageOps.pad(image.resize(inner, Image.Resampling.BICUBIC), size)
    elif fitting.crop is not None:
        image = ImageOps.fit(image, size, Image.Resampling.BICUBIC, (1 - fitting.crop) / 2)
    else:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(domain.height, domain.width, domain.channels)
