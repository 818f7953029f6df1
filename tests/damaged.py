"""Image files of strangers: whole in every format, damaged at random, and made to take time or memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

MEGABYTE = 2**20
SAVED: dict[str, list[dict[str, object]]] = {  # options of each format
    "PNG": [{}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}],
    "JPEG": [{}, {"progressive": True}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}],
}


def picture(height: int = 20, width: int = 30, channels: int = 3, seed: int = 0) -> Image.Image:
    """Return a smooth picture, grey or RGB."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height)).convert("RGB" if channels == 3 else "L")


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def white_png(bits: int, transparent: int) -> bytes:
    """Return a white PNG of 8x8 grey pixels of so many bits, of which one level is transparent."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    level, pixels = struct.pack(">H", transparent), zlib.compress((b"\0" + b"\xff" * bits) * 8)
    parts = [(b"IHDR", head), (b"tRNS", level), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def whole_files() -> list[bytes]:
    """Return a file of every format and way to save it."""
    return [saved(picture(), name, **options) for name, ways in SAVED.items() for options in ways]


def damaged_files(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield damaged files: some bytes changed, cut off, repeated, or two files joined."""
    random, files = np.random.default_rng(seed), whole_files()
    for i in range(count):
        file = bytearray(files[i % len(files)])
        for _ in range(random.integers(1, 4)):
            at, end = sorted(random.integers(0, len(file) + 1, 2))
            match random.integers(5):
                case 0:
                    del file[at:]
                case 1:
                    del file[at:end]
                case 2:
                    file[at:at] = file[at:end]
                case 3:
                    file[at:] = files[random.integers(len(files))][at:]
                case _:
                    for place in random.integers(0, max(1, len(file)), 8):
                        file[place : place + 1] = random.bytes(1)
        yield bytes(file)


def tiff(entries: Sequence[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """Return a TIFF with a directory of entries: tag, type, count, value or place of the values."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + rest


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG of that size with these chunks."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks, (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def greedy_files() -> dict[str, bytes]:
    """Return files that would take gigabytes or minutes from a reader without bounds, each of at most 8 MB."""
    many = [(tag, 7, 7 * MEGABYTE, 0) for tag in range(60_000)]  # each points at nearly all of the file
    strips = [(256, 3, 1, 100), (257, 3, 1, 100), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    offsets = [(tag, 4, 2_000_000, 200) for tag in (273, 279)]
    tile = [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 200), (325, 4, 1, 1000)]
    scans = saved(picture(64, 64), "JPEG", progressive=True)
    last = scans[scans.rindex(b"\xff\xda") : -2]
    side = (2**32 - 1).to_bytes(4)
    row = zlib.compress(bytes(4097 * 4096))
    return {
        "tiff of overlapping tags": tiff(many, bytes(7 * MEGABYTE)),
        "tiff of two million strips": tiff([*strips[:5], offsets[0], strips[5], offsets[1]], bytes(8 * MEGABYTE)),
        "tiff of one large tile": tiff([*strips, *tile], bytes(2000)),
        "gif of comments": b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1c" * (4 * MEGABYTE),
        "gif of 65,535 pixels a side": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0",
        "png of 65,535 pixels a side": png(65_535, 65_535, (b"IDAT", b"x")),
        "png of a text": png(8, 8, (b"tEXt", b"k\0" + b"a" * 8 * MEGABYTE)),
        "png of packed texts": png(8, 8, *[(b"zTXt", b"k\0\0" + zlib.compress(bytes(MEGABYTE)))] * 200),
        "png of tiny parts": png(4096, 4096, *[(b"IDAT", row[i : i + 1]) for i in range(len(row))]),
        "webp of 2^24 pixels a side": b"RIFF\xc8\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6 + bytes(100),
        "jpeg of many scans": scans[:-2] + last * 10_000 + b"\xff\xd9",
        "jpeg of tiny segments": scans[:2] + b"\xff\xe5\0\2" * (2 * MEGABYTE) + scans[2:],
        "bmp of 2^31 pixels a side": b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + bytes(40),
        "header alone": b"\x89PNG\r\n\x1a\n" + side,
    }


def metadata_bomb() -> bytes:
    """Return a valid JPEG of 16 x 16 with megabytes of EXIF whose 5,000 tags each point at 60 kB of it."""
    tags = b"".join(struct.pack(">HHII", tag, 7, 60_000, 0) for tag in range(5300))
    exif = (struct.pack(">2sHIH", b"MM", 42, 8, 5300) + tags)[:65_500]
    file = saved(picture(16, 16), "JPEG")
    return file[:2] + _segment(0xE1, b"Exif\0\0" + exif) * 100 + file[2:]
