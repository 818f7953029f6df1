"""Pixels to files: PNG, sheets, animations, zip, npz. Equal pixels give equal files.

What may take long is a generator that yields after every image and returns the bytes, so that its caller can stop.
Axes: B batch, H height, W width, C channels (1 grey or 3 RGB).
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__
from zlib_ng import zlib_ng as zlib

Pixels = NDArray[np.uint8]
Encoding = Generator[None, None, bytes]

ENCODER_ID = f"5/{zlib.ZLIBNG_RUNTIME_VERSION}/{__version__}"  # part of every ETag
FRAME_MS = 100
WEBP_SIDE, GIF_SIDE = 2**14 - 1, 2**16 - 1  # largest sides of the formats
STORED_UP_TO = 4096  # bytes of pixels: what is smaller costs more to compress than to send


def png(pixels: Pixels) -> bytes:
    """Return pixels [H, W, C] as PNG: stored up to STORED_UP_TO bytes, else compressed quickly."""
    height, width, channels = pixels.shape
    small = height * (1 + width * channels) <= STORED_UP_TO
    packed = _stored(_rows(pixels)) if small else _compressed(pixels)
    return b"".join((_png_start(*pixels.shape), *_chunk(b"IDAT", packed), _PNG_END))


def png_of_rows(blocks: Iterable[Pixels], height: int) -> Encoding:
    """Return blocks [h, W, C], which lie below one another and have `height` together, as one PNG."""
    parts, stream, width, channels = list[bytes](), _compressor(), 0, 0
    for block in blocks:
        _, width, channels = block.shape
        if height * (1 + width * channels) <= STORED_UP_TO:
            return png(np.concatenate([block, *blocks]))
        parts.append(stream.compress(_rows(block, filtered=True)))
        yield
    packed = b"".join((*parts, stream.flush()))
    return b"".join((_png_start(height, width, channels), *_chunk(b"IDAT", packed), _PNG_END))


def _rows(pixels: Pixels, filtered: bool = False) -> bytes:
    """Return PNG's rows, [H, 1 + W * C], each of which begins with its filter.

    Colour may be filtered by 1, `Sub`, which takes a third off photographs; strokes are smaller with 0, none.
    """
    height, width, channels = pixels.shape
    rows, flat = np.zeros((height, 1 + width * channels), np.uint8), pixels.reshape(height, width * channels)
    rows[:, 1:] = flat
    if filtered and channels == 3:
        rows[:, 0] = 1
        rows[:, 1 + channels :] -= flat[:, :-channels]
    return rows.tobytes()


def _compressor() -> Any:
    """Return a zlib stream for runs of equal bytes, in a third of the time of level 1, no larger for strokes."""
    return zlib.compressobj(1, strategy=zlib.Z_RLE, memLevel=9)


def _compressed(pixels: Pixels) -> bytes:
    stream = _compressor()
    packed: bytes = stream.compress(_rows(pixels, filtered=True)) + stream.flush()
    return packed


def _stored(data: bytes) -> bytes:
    """Return a zlib stream of one uncompressed block (RFC 1950, RFC 1951 section 3.2.4)."""
    lengths = struct.pack("<HH", len(data), len(data) ^ 0xFFFF)
    return b"".join((b"\x78\x01\x01", lengths, data, zlib.adler32(data).to_bytes(4)))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return len(data).to_bytes(4), kind, data, zlib.crc32(data, zlib.crc32(kind)).to_bytes(4)


@cache
def _png_start(height: int, width: int, channels: int) -> bytes:
    """Return what precedes the pixels: signature and IHDR, for 8 bits a channel, not interlaced."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header)))


_PNG_END = b"".join(_chunk(b"IEND", b""))


def webp(pixels: Pixels) -> bytes:
    """Return pixels [H, W, C] as lossless WebP, by its fastest method."""
    return _save(pixels, "WEBP", lossless=True, method=0, quality=0)


def sheet_rows(images: Mapping[str, Pixels], scale: int = 1) -> Iterator[Pixels]:
    """Yield the images [B, H, W, C] of all domains as B rows [H, W, C], the domains side by side.

    Smaller images are centred on black; grey becomes RGB beside colour; a pixel becomes a square of side `scale`.
    """
    size, heights, widths, channels = zip(*(column.shape for column in images.values()), strict=True)
    for i in range(size[0]):
        row = np.zeros((max(heights), sum(widths), max(channels)), np.uint8)
        left = 0
        for column, height, width in zip(images.values(), heights, widths, strict=True):
            above = (max(heights) - height) // 2
            row[above : above + height, left : left + width] = column[i]
            left += width
        yield row if scale == 1 else row.repeat(scale, 0).repeat(scale, 1)


def gif(frames: Iterable[Pixels]) -> Encoding:
    """Return frames [H, W, C] as a GIF that repeats: grey exactly, colours by 256 of them a frame."""
    parts, shared = list[bytes](), b""
    control = b"\x21\xf9\x04\x04" + struct.pack("<HBB", FRAME_MS // 10, 0, 0)
    for frame in frames:
        palette, depth, descriptor, codes = _gif_parts(_save(frame, "GIF", optimize=False, interlace=False))
        if not parts:
            shared = palette
            screen = struct.pack("<HHBBB", frame.shape[1], frame.shape[0], 0xF0 | depth, 0, 0)
            parts += [b"GIF89a", screen, palette, b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"]
        own = b"\x00" if palette == shared else bytes([0x80 | depth]) + palette
        parts += [control, descriptor, own, codes]
        yield
    return b"".join((*parts, b";"))


def _gif_parts(file: bytes) -> tuple[bytes, int, bytes, bytes]:
    """Return palette, its depth, the image descriptor without flags, and the compressed pixels of a still GIF."""
    depth = file[10] & 7
    at = 13 + (3 << (depth + 1))
    palette = file[13:at]
    while file[at] == 0x21:  # an extension: label, then blocks up to an empty one
        at += 2
        while file[at]:
            at += file[at] + 1
        at += 1
    return palette, depth, file[at : at + 9], file[at + 10 : -1]


def animated_webp(frames: Iterable[Pixels]) -> Encoding:
    """Return frames [H, W, C] as a lossless WebP that repeats."""
    parts, size = list[bytes](), bytes(6)
    for frame in frames:
        height, width, _ = frame.shape
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        image = webp(frame)[12:]  # the chunk with the pixels
        parts += _riff_chunk(b"ANMF", bytes(6) + size + FRAME_MS.to_bytes(3, "little") + b"\x02" + image)
        yield
    start = [*_riff_chunk(b"VP8X", b"\x02\x00\x00\x00" + size), *_riff_chunk(b"ANIM", bytes(6))]
    return b"".join(_riff_chunk(b"RIFF", b"".join((b"WEBP", *start, *parts))))


def _riff_chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return kind, len(data).to_bytes(4, "little"), data, b"\x00" * (len(data) % 2)


def animated_png(frames: Iterable[Pixels], count: int) -> Encoding:
    """Return `count` frames [H, W, C] as a PNG that repeats; a reader without animation shows the first."""
    parts, number = list[bytes](), 0
    for i, frame in enumerate(frames):
        height, width, channels = frame.shape
        packed = _compressed(frame)
        if i == 0:
            parts += [_png_start(height, width, channels), *_chunk(b"acTL", struct.pack(">II", count, 0))]
        control = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, FRAME_MS, 1000, 0, 0)
        parts += _chunk(b"fcTL", control)
        parts += _chunk(b"fdAT", (number + 1).to_bytes(4) + packed) if i else _chunk(b"IDAT", packed)
        number += 2 if i else 1
        yield
    return b"".join((*parts, _PNG_END))


def zipped(files: Iterable[tuple[str, bytes]]) -> Encoding:
    """Return files as a zip archive, uncompressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)  # always dated 1980: equal files, equal bytes
            yield
    return buffer.getvalue()


def npz(arrays: Mapping[str, NDArray[Any]]) -> Encoding:
    """Return arrays, whatever they are called, as an uncompressed npz, which `numpy.load` reads."""
    return zipped((f"{name}.npy", npy(array)) for name, array in arrays.items())


def npy(array: NDArray[Any]) -> bytes:
    """Return an array as a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _save(pixels: Pixels, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, kind, **options)
    return buffer.getvalue()
