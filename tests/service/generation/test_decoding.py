"""Files of strangers become images of a domain, or errors that say what is allowed, in bounded time and memory."""

from __future__ import annotations

import asyncio
import io
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.errors import DeadlineExceeded, InvalidRequest, QueueFull, RequestError, TooLarge
from service.generation import decoding
from service.generation.decoding import FORMATS, Fitting, ImageDecoder, fit, fit_all, read_image
from service.metadata import Domain
from service.telemetry.metrics import Metrics
from tests.damaged import SAVED, damaged_files, greedy_files, metadata_bomb, picture, saved, tiff, white_png
from tests.service.engine.conftest import value

pytestmark = pytest.mark.anyio
LOSSES = 10  # mean difference in levels, of another picture about 60
WHOLE = [(name, options) for name, ways in SAVED.items() for options in ways]


def domain(height: int = 8, width: int = 6, channels: int = 1) -> Domain:
    """Return a domain of that shape."""
    return Domain(name="digit", height=height, width=width, channels=1 if channels == 1 else 3, description="")


def test_every_listed_format_is_tested() -> None:
    """None is listed that the tests below do not read."""
    assert set(SAVED) == set(FORMATS)


@pytest.mark.parametrize(("name", "options"), WHOLE)
def test_every_format_is_read(name: str, options: dict[str, object]) -> None:
    """An image is what was saved, but for the losses of its format and its rotation."""
    expected = picture()
    image = read_image(saved(expected, name, **options))
    if "exif" in options:  # lies on its side
        expected = expected.transpose(Image.Transpose.ROTATE_270)
    assert image.size == expected.size
    difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(expected, int))
    assert difference.mean() < LOSSES


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(name: str, orientation: int) -> None:
    """EXIF's orientation is applied, as Pillow applies it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if name == "WEBP" else {}
    file = saved(picture(), name, exif=exif.tobytes() if name != "TIFF" else exif, **lossless)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert np.array_equal(np.asarray(read_image(file)), np.asarray(expected))


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_metadata_do_not_damage_an_image(exif: bytes) -> None:
    """EXIF data that cannot be read turn nothing."""
    assert read_image(saved(picture(), "JPEG", exif=exif)).size == (30, 20)


def test_the_first_of_several_images_is_read() -> None:
    """An animation or a file of pages is its first image."""
    frames = [picture(seed=i) for i in range(3)]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        lossless = {"lossless": True} if name == "WEBP" else {}
        file = saved(frames[0], name, save_all=True, append_images=frames[1:], **lossless)
        found = np.asarray(read_image(file).convert("RGB"), int)
        assert np.abs(found - np.asarray(frames[0], int)).mean() < LOSSES, name


def test_what_can_be_seen_through_lies_on_black() -> None:
    """Transparency by channel, palette or colour becomes black, and half of it half."""
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    image.putpixel((0, 0), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 128))
    found = fit(read_image(saved(image, "PNG")), Fitting(domain(4, 4, 3)))
    assert found[0, 0].tolist() == [200, 100, 50]
    assert found[0, 1].tolist() == [100, 50, 25]
    assert not found[1:].any()
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([255, 255, 255, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    found = fit(read_image(saved(palette, "GIF", transparency=0)), Fitting(domain(1, 2, 3)))
    assert found[0].tolist() == [[0, 0, 0], [10, 20, 30]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_is_transparent_is_black(bits: int) -> None:
    """At every depth of a PNG; another level that is transparent leaves white as it is."""
    white = 2**bits - 1
    assert fit(read_image(white_png(bits, white)), Fitting(domain(8, 8))).max() == 0
    assert fit(read_image(white_png(bits, 0)), Fitting(domain(8, 8))).min() == 255


@pytest.mark.parametrize("pad", [False, True])
def test_dark_ink_is_inverted_and_what_is_added_is_not(pad: bool) -> None:
    """Ink on paper or on a transparent ground becomes light on black; so is the margin, and what `pad` adds."""
    ink = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    ink.paste((40, 0, 0, 255), (1, 1, 3, 3))
    paper = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink).convert("RGB")
    expected = np.zeros((10 if pad else 6, 6, 3), np.uint8)
    expected[slice(4, 6) if pad else slice(2, 4), 2:4] = [215, 255, 255]
    for image in (ink, paper):
        fitting = Fitting(domain(*expected.shape), margin=1, pad=pad, invert=True)
        assert np.array_equal(fit(read_image(saved(image, "PNG")), fitting), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_a_ground_to_be_inverted(bits: int) -> None:
    """At every depth, what can be seen through becomes black also if light and dark are exchanged."""
    inverting = Fitting(domain(8, 8), invert=True)
    assert fit(read_image(white_png(bits, 2**bits - 1)), inverting).max() == 0
    assert fit(read_image(white_png(bits, 0)), inverting).max() == 0


@pytest.mark.parametrize("size", [(2000, 20), (20, 2000), (10_000, 1), (56, 1), (1, 2**24)])
def test_a_padded_strip_is_seen(size: tuple[int, int]) -> None:
    """Of the narrowest image, a line of pixels is left between the black."""
    found = fit(read_image(saved(Image.new("L", size, 255), "PNG")), Fitting(domain(28, 28), pad=True))
    assert (found > 0).sum() == 28


def test_grey_of_16_bits_is_scaled() -> None:
    """0 to 65535 becomes 0 to 255; what has 32 bits is refused, as nobody knows its range."""
    grey = Image.fromarray(np.array([[0, 257 * 7, 65535]], np.uint16))
    for name in ("PNG", "TIFF"):
        assert fit(read_image(saved(grey, name)), Fitting(domain(1, 3)))[0, :, 0].tolist() == [0, 7, 255]
    with pytest.raises(InvalidRequest, match="mode F; save it with 8 or 16 bits"):
        read_image(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def test_an_image_is_fitted_in_the_way_that_is_named() -> None:
    """Stretched, or its middle, or with black beside it; with a margin around it first."""
    image = Image.fromarray(np.repeat(np.array([[10, 200, 200, 30]], np.uint8), 2, axis=0))
    shape = domain(2, 2)
    stretched, cropped, padded = (
        fit(image, one)[..., 0] for one in (Fitting(shape), Fitting(shape, crop=1.0), Fitting(shape, pad=True))
    )
    assert stretched.shape == cropped.shape == padded.shape == (2, 2)
    assert cropped.tolist() == [[200, 200]] * 2
    assert (stretched < 200).all()
    assert padded.sum() < stretched.sum()
    wide = fit(image, Fitting(domain(4, 6), margin=1))[..., 0]
    assert np.array_equal(wide[1:3, 1:5], np.asarray(image))
    assert wide.sum() == np.asarray(image).sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_become_each_other(channels: int) -> None:
    """A domain's images have its channels, whatever the file has."""
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        name = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
        (found,) = fit_all(saved(picture().convert(mode), name), [Fitting(domain(8, 6, channels))], lambda: False)
        assert (found.shape, found.dtype.name) == ((8, 6, channels), "uint8")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LAB", "CMYK", "YCbCr", "RGBX", "1", "P"])
def test_every_kind_of_tiff_is_read_or_refused(channels: int, mode: str) -> None:
    """No kind of values is a defect of the service: those of printers and scanners become grey and colour."""
    flat = Image.new("RGB", (6, 8), (90, 90, 90)).convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        flat = Image.merge("LAB", [Image.new("L", (6, 8), level) for level in (97, 128, 128)])
    (found,) = fit_all(saved(flat, "TIFF"), [Fitting(domain(8, 6, channels))], lambda: False)
    expected = 0 if mode == "1" else 90
    assert abs(float(found.mean()) - expected) < 10 or mode == "1"


@pytest.mark.parametrize(
    "file", [b"", b"hello", b"<svg/>", saved(picture(), "PPM"), saved(picture(), "ICO"), saved(picture(), "PNG")[:-40]]
)
def test_what_is_no_image_is_refused(file: bytes) -> None:
    """Formats that are not listed, text and truncated files get an error that lists what is allowed."""
    with pytest.raises(InvalidRequest) as caught:
        read_image(file)
    assert caught.value.errors[0].pointer == "/image"
    assert all(name in caught.value.detail for name in FORMATS)


def test_a_damaged_image_is_called_so() -> None:
    """A file that begins like one of a listed format was damaged on its way."""
    file = bytearray(saved(picture(), "PNG"))
    file[20] ^= 1  # in its header, which has a checksum
    with pytest.raises(InvalidRequest, match="the PNG is damaged; send it anew"):
        read_image(bytes(file))


@pytest.mark.parametrize("name", list(greedy_files()))
def test_greedy_files_are_refused_at_once(name: str) -> None:
    """Huge sides, metadata of megabytes, tiny parts and many scans are found before they cost anything."""
    file, begun = greedy_files()[name], time.perf_counter()
    with pytest.raises((InvalidRequest, TooLarge)):
        read_image(file)
    assert time.perf_counter() - begun < 5


def test_metadata_are_not_read() -> None:
    """A JPEG whose tags each copy 60 kB is read without them: their memory would be 300 MB."""
    file = metadata_bomb()
    tracemalloc.start()
    try:
        assert read_image(file).size == (16, 16)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(file)
    finally:
        tracemalloc.stop()


def test_the_largest_image_is_within_the_limit() -> None:
    """2^24 pixels are read, one more row is too much."""
    assert read_image(saved(Image.new("1", (4096, 4096)), "PNG")).size == (4096, 4096)
    with pytest.raises(TooLarge, match="4096 x 4097 pixels; at most 16777216 pixels are allowed"):
        read_image(saved(Image.new("1", (4096, 4097)), "PNG"))


def test_a_tile_is_no_larger_than_an_image() -> None:
    """A small TIFF of large tiles is refused for them."""
    tags = [(256, 3, 1, 9), (257, 3, 1, 9), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1)]
    with pytest.raises(TooLarge, match="60000 x 60000 pixels"):
        read_image(tiff([*tags, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 200), (325, 4, 1, 1)], bytes(99)))


def test_damaged_files_are_read_or_refused() -> None:
    """Of some hundred damaged files, each is an image or a RequestError with status 4xx, and quickly."""
    statuses = Counter[int]()
    for file in damaged_files(400):
        begun = time.perf_counter()
        try:
            fit_all(file, [Fitting(domain())], lambda: False)
            statuses[200] += 1
        except RequestError as error:
            statuses[error.status] += 1
        assert time.perf_counter() - begun < 5
    assert statuses.keys() <= {200, 413, 422}
    assert min(statuses[200], statuses[422]) > 20


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return one thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_a_decoder_returns_an_image_of_each_domain(threads: ThreadPoolExecutor) -> None:
    """The file is read once, and fitted to every domain."""
    decoder, later = ImageDecoder(threads, Metrics()), asyncio.get_running_loop().time() + 10
    shapes = [domain(), domain(10, 9, 3)]
    images, seconds = await decoder.decode(saved(picture(), "PNG"), [Fitting(one) for one in shapes], later)
    assert [one.shape for one in images] == [(8, 6, 1), (10, 9, 3)]
    assert seconds > 0


async def test_decoding_ends_at_the_deadline(threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request gets an error at its deadline, and the thread stops at the next part of the file."""
    metrics, ended, reading = Metrics(), threading.Event(), threading.Event()
    read = decoding.BoundedFile.read

    def read_slowly(self: decoding.BoundedFile, size: int | None = -1, /) -> bytes:
        reading.set()
        time.sleep(0.02)
        try:
            return read(self, size)
        except DeadlineExceeded:
            ended.set()
            raise

    monkeypatch.setattr(decoding.BoundedFile, "read", read_slowly)
    decoder, loop = ImageDecoder(threads, metrics), asyncio.get_running_loop()
    file = saved(picture(), "GIF", comment=b"c" * 250_000)  # of a thousand parts
    begun = loop.time()
    with pytest.raises(DeadlineExceeded):
        await decoder.decode(file, [Fitting(domain())], begun + 2)
    assert reading.is_set()
    assert loop.time() - begun < 10  # to read it all takes 20
    assert await asyncio.to_thread(ended.wait, 10)
    assert value(metrics, "cogan_rejected_total", reason="deadline") == 1


async def test_waiting_files_are_bounded(threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes over the limit get 429 at once; when the thread is free again, they are taken."""
    metrics, go_on = Metrics(), threading.Event()
    threads.submit(go_on.wait)
    file = saved(picture(), "BMP")
    monkeypatch.setattr(decoding, "MAX_WAITING", len(file))
    decoder, later = ImageDecoder(threads, metrics), asyncio.get_running_loop().time() + 30
    first = asyncio.create_task(decoder.decode(file, [Fitting(domain())], later))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as caught:
        await decoder.decode(file, [Fitting(domain())], later)
    assert caught.value.headers == {"Retry-After": "1"}
    assert value(metrics, "cogan_rejected_total", reason="queue_full") == 1
    go_on.set()
    await first
    assert len((await decoder.decode(file, [Fitting(domain())], later))[0]) == 1


def test_what_follows_a_jpeg_is_not_of_it() -> None:
    """Phones append a film, in which bytes look like scans; any number of fill bytes may precede a marker."""
    plain = saved(picture(), "JPEG", progressive=True)
    film, filled = plain + b"\xff\xda" * 1000, plain.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    for file in (film, filled):
        assert np.array_equal(np.asarray(read_image(file)), np.asarray(read_image(plain)))
    many = plain[: plain.index(b"\xff\xda")] + b"\xff\xda\x00\x02" * 40
    with pytest.raises(InvalidRequest, match="a JPEG has 1 to 32 scans"):
        read_image(many)
