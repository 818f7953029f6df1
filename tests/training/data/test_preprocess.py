"""Preprocessing of images, and the cache of decoded ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.damaged import white_png
from tests.training.data.folders import levels, swap, write
from training.config.data import DomainConfig
from training.data import preprocess
from training.data.preprocess import fit
from training.errors import DataError

SIZE = (28, 28)


def domain(**changes: Any) -> DomainConfig:
    """Make a domain that says only how images are fitted."""
    return DomainConfig("digit", source="none", **changes)


def test_colour_becomes_grey_and_grey_colour() -> None:
    """Grey is ITU-R 601's, 0.299 of red; colour of grey is three times the same."""
    red = Image.new("RGB", (10, 20), (255, 0, 0))
    grey = fit(red, SIZE, domain())
    assert grey.shape == (28, 28, 1)
    assert np.unique(grey).tolist() == [76]
    assert fit(red, SIZE, domain(channels=3))[0, 0].tolist() == [255, 0, 0]
    assert fit(Image.new("L", (9, 9), 40), SIZE, domain(channels=3))[5, 5].tolist() == [40, 40, 40]


def test_values_of_printers_become_grey() -> None:
    """CIE L*a*b* is read by its lightness, in one channel as in three."""
    lab = Image.merge("LAB", [Image.new("L", (9, 9), level) for level in (97, 128, 128)])
    levels = [fit(lab, SIZE, domain(channels=channels)).mean() for channels in (1, 3)]
    assert np.allclose(levels, 90, atol=5)


def transparent(mode: str) -> Image.Image:
    """Make an image of that mode: an opaque column, one half transparent and one that is not seen at all."""
    colours = np.array([[[200, 0, 0, 255], [200, 0, 0, 128], [200, 0, 0, 0]]] * 3, np.uint8)
    image = Image.fromarray(colours)
    return image.quantize() if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(("mode", "red"), [("RGBA", 200), ("LA", 60), ("P", 200)])
def test_transparent_images_lie_on_black(mode: str, red: int) -> None:
    """A colour that is not seen is not learned: half of it is half as light, and none of it is black."""
    fitted = fit(transparent(mode), (3, 3), domain(channels=3))
    assert fitted[0, :, 0].tolist() == [red, pytest.approx(red / 2, abs=1), 0]
    assert fit(transparent(mode), (3, 3), domain())[0, :, 0].tolist() == [60, pytest.approx(30, abs=1), 0]


def test_a_colour_that_stands_for_nothing_is_black() -> None:
    """A file without an alpha channel may name one colour as transparent."""
    image = Image.new("RGB", (3, 3), (255, 0, 255))
    image.info["transparency"] = (255, 0, 255)
    assert fit(image, (3, 3), domain(channels=3)).max() == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_is_transparent_is_black(bits: int) -> None:
    """At every depth of a PNG; another level that is transparent leaves white as it is."""
    seen, unseen = ({"bytes": white_png(bits, level), "path": "a.png"} for level in (0, 2**bits - 1))
    assert fit(preprocess.decode(seen), (8, 8), domain()).min() == 255
    assert fit(preprocess.decode(unseen), (8, 8), domain()).max() == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16"])
def test_a_turned_tiff_is_upright(tmp_path: Path, mode: str) -> None:
    """By its name and by its bytes: without compression, Pillow maps a file into memory."""
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    picture = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    picture.save(tmp_path / "a.tif", tiffinfo={274: 6})  # to be turned clockwise
    for content in (None, (tmp_path / "a.tif").read_bytes()):
        turned = preprocess.decode({"path": str(tmp_path / "a.tif"), "bytes": content})
        found = fit(turned, (4, 3), domain())[..., 0]
        assert np.abs(found.astype(int) - np.rot90(np.asarray(grey), -1)).max() <= 1


def test_white_may_be_zero_in_a_tiff(tmp_path: Path) -> None:
    """At 16 bits, too: scanners write either."""
    levels = Image.fromarray(np.array([[0, 40_000, 65_535]], np.uint16))
    levels.save(tmp_path / "a.tif", tiffinfo={262: 0})
    content = (tmp_path / "a.tif").read_bytes()
    entry = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")  # the tag, of one short: Pillow writes its own value
    for value, expected in ((0, [255, 99, 0]), (1, [0, 156, 255])):
        file = content[: entry + 8] + bytes([value]) + content[entry + 9 :]
        assert fit(preprocess.decode({"path": "a.tif", "bytes": file}), (1, 3), domain())[0, :, 0].tolist() == expected


def test_an_image_of_the_right_size_keeps_its_bytes() -> None:
    """Nothing is resampled, scaled or rounded on the way where nothing is asked."""
    pixels = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    for changes in ({}, {"crop": 1.0}):
        assert np.array_equal(fit(Image.fromarray(pixels), SIZE, domain(**changes))[..., 0], pixels)


def test_a_margin_is_added_before_images_are_resized() -> None:
    """USPS's 16x16 pixels with 3 more on each side are 22 at 28: ink ends where the margin begins."""
    white = Image.new("L", (16, 16), 255)
    assert fit(white, SIZE, domain()).min() == 255
    inked = np.argwhere(fit(white, SIZE, domain(margin=3))[..., 0] > 127)
    first, last = 28 * 3 / 22, 28 * 19 / 22  # 3.8 and 24.2
    assert inked.min(0).tolist() == [round(first)] * 2
    assert inked.max(0).tolist() == [round(last) - 1] * 2


def test_a_crop_keeps_the_middle_undistorted() -> None:
    """All of it is a centred square of a wide image; a share is so much of that square's side."""
    levels = np.arange(0, 240, 2).astype(np.uint8)  # 60 x 120, a level for each column
    striped = Image.fromarray(np.repeat(levels[None], 60, 0))
    ends = {crop: fit(striped, SIZE, domain(crop=crop))[0, [0, -1], 0].tolist() for crop in (None, 1.0, 0.5)}
    assert ends[None] == pytest.approx([0, 238], abs=8)
    assert ends[1.0] == pytest.approx([60, 178], abs=4)
    assert ends[0.5] == pytest.approx([90, 148], abs=4)


def test_values_of_unknown_range_are_refused() -> None:
    """Of floats and of 32 bits nobody knows the range, so none is guessed; one bit is black or white."""
    for pixels in (np.ones(SIZE, np.float32), np.ones(SIZE, np.int32)):
        with pytest.raises(DataError, match=r"holds values of mode [IF].*, not bytes"):
            fit(Image.fromarray(pixels), SIZE, domain())
    assert np.unique(fit(Image.new("1", SIZE, 1), SIZE, domain())).tolist() == [255]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, suffix: str) -> None:
    """Depth and scans keep their full range, from 0 to 65535, in whatever file they are."""
    levels = np.linspace(0, 65535, 28 * 28).round().reshape(SIZE).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / f"deep{suffix}")
    with Image.open(tmp_path / f"deep{suffix}") as image:
        assert np.array_equal(fit(image, SIZE, domain())[..., 0], np.rint(levels / 257))
    big_endian = Image.frombytes("I;16B", SIZE, levels.astype(">u2").tobytes())
    assert np.array_equal(fit(big_endian, SIZE, domain())[..., 0], np.rint(levels / 257))


def test_images_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is at its row, however many are read at once."""
    monkeypatch.setattr(preprocess, "ROWS_AT_ONCE", 2)
    write(tmp_path / "train", *range(60, 65))
    assert levels(tmp_path) == [60, 61, 62, 63, 64]


def test_images_that_swap_their_names_are_read_anew(tmp_path: Path) -> None:
    """Their paths, sizes and times are as before."""
    train = write(tmp_path / "train", 1, 2, suffix=".bmp")
    for file in train.iterdir():
        os.utime(file, (0, 0))
    assert levels(tmp_path) == [1, 2]
    swap(*train.iterdir())
    assert levels(tmp_path) == [2, 1]


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time they come from the cache, unless one of them has changed; a full cache is no error."""
    decoded: list[str] = []
    decode = preprocess.decode
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def counted(cell: dict[str, Any]) -> Image.Image:
        decoded.append(cell["path"])
        return decode(cell)

    monkeypatch.setattr(preprocess, "decode", counted)
    train = write(tmp_path / "photos" / "train", 1, 2)
    tmp_path /= "photos"
    assert levels(tmp_path) == levels(tmp_path) == [1, 2]
    assert len(decoded) == 2
    write(train, 3)
    assert levels(tmp_path) == [1, 2, 3]
    assert levels(tmp_path, crop=0.5) == [1, 2, 3]
    assert len(decoded) == 8
    monkeypatch.setattr(preprocess, "CACHE_LIMIT", 0)
    write(train, 4)
    assert levels(tmp_path) == levels(tmp_path) == [1, 2, 3, 4]
    assert len(decoded) == 16
