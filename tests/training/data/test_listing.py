"""Every image below a folder is read or reported, once, and nothing else is."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.training.data.folders import levels, load, write
from tests.training.data.picture_sets import SIZE
from training.data import decoding
from training.errors import DataError


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".Jpg", "JPEG"),
        (".JPEG", "JPEG"),
        (".jfif", "JPEG"),
        (".Png", "PNG"),
        (".Tif", "TIFF"),
        (".TIFF", "TIFF"),
        (".WebP", "WEBP"),
        (".Bmp", "BMP"),
        (".avif", "AVIF"),
        (".JP2", "JPEG2000"),
        (".gif", "GIF"),
        (".ppm", "PPM"),
        (".tga", "TGA"),
        (".qoi", "QOI"),
        ("", "JPEG"),
        (".jpg_large", "JPEG"),
        (".jpg", "PNG"),
        (".1", "PNG"),
    ],
)
def test_an_image_is_known_by_what_it_holds(tmp_path: Path, suffix: str, kind: str) -> None:
    """Suffixes in any case, of any format that Pillow reads, wrong ones and none."""
    write(tmp_path / "train", 1)
    write(tmp_path / "train", 50, suffix=suffix, kind=kind)
    assert levels(tmp_path) == pytest.approx([1, 50], abs=2)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    """Captions, annotations, statistics and what systems leave beside images are no images and no tables."""
    write(tmp_path / "train", 1, 2)
    write(tmp_path / "test", 3)
    for folder in (tmp_path, tmp_path / "train"):
        for name in ("001.txt", "001.json", "001.xml", "labels.csv", "captions.jsonl", "Thumbs.db", ".DS_Store"):
            (folder / name).write_text('{"shapes": []}')
        (folder / "._001.png").write_bytes(b"\0\5\26\7")
        np.savez(folder / "fid_stats.npz", mu=np.zeros(4))
        (folder / "features.h5").write_bytes(b"x")
        (folder / "notes.pdf").write_bytes(b"%PDF-1.4")
        (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
        (folder / "LICENSE").write_text("mine")
        write(folder / "__MACOSX", 90)
        write(folder / "@eaDir", 91)
    assert (levels(tmp_path), levels(tmp_path, "test")) == ([1, 2], [3])


def test_what_is_left_out_is_reported_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How many files, which and why: other formats, archives, backups, links to nothing, hidden images."""
    train = write(tmp_path / "train", 1)
    for name in ("a.heic", "b.HEIC", "c.nef", "more.zip", "d.jpg.part", "e.png~"):
        (train / name).write_bytes(b"x")
    (train / "f.png").symlink_to("gone.png")
    write(train / ".trash", 9)
    shutil.copy(train / "001.png", train / ".001.png")
    os.mkfifo(train / "g.png")
    (train / "loop").symlink_to(train)
    for name in ("self", "self.png"):
        (train / name).symlink_to(name)
    with caplog.at_level(logging.WARNING):
        assert levels(tmp_path) == levels(tmp_path) == [1]
    (line,) = caplog.messages
    assert line.startswith(f"{train}: 1 images are read; left out ")
    for part in (
        f"2 (.heic cannot be read: convert to PNG or JPEG): {train}/a.heic, {train}/b.HEIC",
        "1 (.nef cannot be read",
        f"1 (archives: unpack them): {train}/more.zip",
        f"2 (unfinished files or backups): {train}/d.jpg.part, {train}/e.png~",
        f"3 (links to nothing): {train}/f.png, {train}/self, {train}/self.png",
        f"2 (hidden): {train}/.001.png, {train}/.trash",
        f"1 (not regular files): {train}/g.png",
        f"1 (links to a folder around them): {train}/loop",
    ):
        assert part in line


def test_a_split_of_nothing_that_can_be_read_says_so(tmp_path: Path) -> None:
    """Photographs of a telephone alone are named with what to do."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image that can be read; left out 1 \(\.heic .+ convert to PNG"):
        load(tmp_path)


def test_links_are_followed(tmp_path: Path) -> None:
    """A split, a class, a folder within one and an image may be links to elsewhere."""
    a, cat, dog = (write(tmp_path / "store" / name, level) for name, level in (("a", 1), ("cat", 2), ("dog", 3)))
    source = tmp_path / "source"
    write(source / "test", 9)
    (source / "train").symlink_to(a)
    assert levels(source) == [1]
    (a / "more").symlink_to(cat)
    (a / "z.png").symlink_to(dog / "003.png")
    assert levels(source) == [1, 2, 3]
    classes = tmp_path / "classes"
    for split in ("train", "test"):
        (classes / split).mkdir(parents=True)
        for folder in (cat, dog):
            (classes / split / folder.name).symlink_to(folder)
    loaded = load(classes)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1]


def test_a_folder_that_may_not_be_read_is_named(as_a_user: Path) -> None:
    """Nothing below a split is left out because its permission is missing."""
    write(as_a_user / "train", 1)
    more = write(as_a_user / "train" / "more", 2)
    more.chmod(0)
    try:
        with pytest.raises(DataError, match=rf"folder {more} cannot be read \(Permission denied\)"):
            load(as_a_user)
    finally:
        more.chmod(0o700)
    (more / "002.png").chmod(0)
    with pytest.raises(DataError, match=r"image .+002\.png .*cannot be read: .*Permission denied"):
        load(as_a_user)


def test_all_damaged_images_are_named(tmp_path: Path) -> None:
    """One error has every image that cannot be read, not the first alone."""
    train = write(tmp_path / "train", 1)
    for name in ("a.png", "b.jpg"):
        (train / name).write_bytes(b"<html>")
    (train / "c.png").touch()
    with pytest.raises(DataError, match=r"image \S+a\.png .+ cannot be read: .+2 others: \S+b\.jpg, \S+c\.png; mend"):
        load(tmp_path)


def test_a_name_of_other_bytes_is_read(tmp_path: Path) -> None:
    """Names of old systems are no UTF-8, and their images are images."""
    train = write(tmp_path / "train", 1)
    (train / "001.png").rename(os.fsdecode(os.fsencode(train) + b"/caf\xe9.png"))
    assert levels(tmp_path) == [1]


def test_the_first_page_of_a_scan_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of files with several pages the first counts, and that is said."""
    train = write(tmp_path / "train", 1)
    first, second = (Image.new("L", SIZE, level) for level in (21, 22))
    first.save(train / "scan.tif", save_all=True, append_images=[second])
    assert levels(tmp_path) == [1, 21]
    assert f"of 1 files with several pages the first is read: {train}/scan.tif" in caplog.text


def test_images_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is at its row, however many are read at once."""
    monkeypatch.setattr(decoding, "ROWS_AT_ONCE", 2)
    write(tmp_path / "train", *range(60, 65))
    assert levels(tmp_path) == [60, 61, 62, 63, 64]


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time they come from the cache, unless one of them has changed; a full cache is no error."""
    decoded: list[str] = []
    decode = decoding.decode
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def counted(cell: dict[str, Any]) -> Image.Image:
        decoded.append(cell["path"])
        return decode(cell)

    monkeypatch.setattr(decoding, "decode", counted)
    train = write(tmp_path / "photos" / "train", 1, 2)
    tmp_path /= "photos"
    assert levels(tmp_path) == levels(tmp_path) == [1, 2]
    assert len(decoded) == 2
    write(train, 3)
    assert levels(tmp_path) == [1, 2, 3]
    assert levels(tmp_path, crop=0.5) == [1, 2, 3]
    assert len(decoded) == 8
    monkeypatch.setattr(decoding, "CACHE_LIMIT", 0)
    write(train, 4)
    assert levels(tmp_path) == levels(tmp_path) == [1, 2, 3, 4]
    assert len(decoded) == 16
