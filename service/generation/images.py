"""Bytes of pixels to files: PNG, sheets, animations, zip, npz. Equal pixels give equal files.

Axes: B batch, H height, W width, C channels (1 grey or 3 RGB).
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__
from zlib_ng import zlib_ng as zlib

Pixels = NDArray[np.uint8]

ENCODER_ID = f"4/{zlib.ZLIBNG_RUNTIME_VERSION}/{__version__}"  # part of every ETag
FRAME_MS = 100
WEBP_SIDE, GIF_SIDE = 2**14 - 1, 2**16 - 1  # the most pixels that the formats have room for
STORED_UP_TO = 4096  # bytes of pixels: what is smaller costs more to compress than to send


def png(pixels: Pixels) -> bytes:
    """Write pixels [H, W, C] as PNG: stored up to STORED_UP_TO bytes, else compressed quickly.

    Colour is filtered by `Sub`, which takes a third off photographs; strokes are smaller without.
    """
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, width * channels)
    if rows.size <= STORED_UP_TO:
        packed = _stored(rows.tobytes())
    else:
        if channels == 3:
            rows[:, 0] = 1
            rows[:, 1 + channels :] -= pixels.reshape(height, -1)[:, :-channels]
        packed = _compressed(rows.tobytes())
    return b"".join((_png_head(height, width, channels), *_chunk(b"IDAT", packed), _PNG_END))


def _compressed(data: bytes) -> bytes:
    """Compress runs of equal bytes alone, in a third of the time of level 1 and no larger for strokes."""
    stream = zlib.compressobj(1, strategy=zlib.Z_RLE, memLevel=9)
    return stream.compress(data) + stream.flush()


def _stored(data: bytes) -> bytes:
    """Wrap bytes as a zlib stream of one uncompressed block (RFC 1950, RFC 1951 section 3.2.4)."""
    lengths = struct.pack("<HH", len(data), len(data) ^ 0xFFFF)
    return b"".join((b"\x78\x01\x01", lengths, data, zlib.adler32(data).to_bytes(4)))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return len(data).to_bytes(4), kind, data, zlib.crc32(data, zlib.crc32(kind)).to_bytes(4)


@cache
def _png_head(height: int, width: int, channels: int) -> bytes:
    """Return what precedes the pixels: signature and IHDR, for 8 bits a channel, not interlaced."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header)))


_PNG_END = b"".join(_chunk(b"IEND", b""))


def webp(pixels: Pixels) -> bytes:
    """Write pixels [H, W, C] as lossless WebP, by its fastest method."""
    return _save([pixels], "WEBP", lossless=True, method=0, quality=0)


def sheet(images: Mapping[str, Pixels]) -> Pixels:
    """Lay out images [B, H, W, C] of every domain as one [H, W, C]: rows are latents, columns domains.

    Smaller images are centred on black; grey becomes RGB beside colour.
    """
    size, heights, widths, channels = zip(*(column.shape for column in images.values()), strict=True)
    rows = np.zeros((size[0], max(heights), sum(widths), max(channels)), np.uint8)
    left = 0
    for column, height, width in zip(images.values(), heights, widths, strict=True):
        above = (max(heights) - height) // 2
        rows[:, above : above + height, left : left + width] = column
        left += width
    return rows.reshape(-1, *rows.shape[2:])


def frames(images: Mapping[str, Pixels]) -> list[Pixels]:
    """Lay out images [B, H, W, C] of every domain as B frames [H, W, C], the domains side by side."""
    rows = sheet(images)
    height = max(column.shape[1] for column in images.values())
    return list(rows.reshape(-1, height, *rows.shape[1:]))


def gif(pixels: Sequence[Pixels]) -> bytes:
    """Write frames [H, W, C] as a GIF that repeats: grey exactly, colours by 256 of them a frame."""
    return _save(pixels, "GIF", loop=0, duration=FRAME_MS, disposal=1, optimize=False)


def animated_webp(pixels: Sequence[Pixels]) -> bytes:
    """Write frames [H, W, C] as a lossless WebP that repeats."""
    return _save(pixels, "WEBP", loop=0, duration=FRAME_MS, lossless=True, method=0, quality=0)


def animated_png(pixels: Sequence[Pixels]) -> bytes:
    """Write frames [H, W, C] as a PNG that repeats; a reader without animation shows the first frame."""
    return _save(pixels, "PNG", loop=0, duration=FRAME_MS, compress_level=1)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Pack files into a zip archive as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # always dated 1980: equal files, equal bytes
    return buffer.getvalue()


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays, whatever they are called, into an uncompressed npz, which `numpy.load` reads."""
    return zipped({f"{name}.npy": _npy(array) for name, array in arrays.items()})


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _save(pixels: Sequence[Pixels], kind: str, **options: Any) -> bytes:
    first, *others = (Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in pixels)
    buffer = io.BytesIO()
    if others:
        options |= {"save_all": True, "append_images": others}
    first.save(buffer, kind, **options)
    return buffer.getvalue()
