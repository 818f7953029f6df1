"""Folders of images: every image is read or reported, once, and nothing else is; splits and classes by folders."""

from __future__ import annotations

import logging
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.folders import levels, load, write
from tests.training.data.picture_sets import SIZE
from training.errors import DataError


@pytest.mark.parametrize(
    "name", ["photos[1]", "pics [2024]", "a*b", "what?", "{a,b}", ".hidden", "Bücher 写真", "~", "a+b", "**", "x.zip"]
)
def test_no_name_of_a_folder_is_a_pattern(tmp_path: Path, name: str) -> None:
    """Brackets, stars, spaces and leading dots mean themselves, for images and for tables."""
    for other in ("photos1", "a-other-b", "whats"):
        write(tmp_path / other / "train", 90)
    write(tmp_path / name / "train", 1, 2)
    write(tmp_path / name / "test", 3)
    assert (levels(tmp_path / name), levels(tmp_path / name, "test")) == ([1, 2], [3])
    table = tmp_path / "tables" / name
    write(table / "images", 4)
    for split in ("train", "test"):
        (table / f"{split}.csv").write_text("image\nimages/004.png\n")
    assert levels(table) == levels(table, "test") == [4]


def test_the_first_folder_alone_names_the_split(tmp_path: Path) -> None:
    """A class may be called train or test, in any case: no test image is learned from."""
    for number, name in enumerate(("bus", "train", "Test", "steam-train", "validation")):
        write(tmp_path / "train" / name, number)
        write(tmp_path / "test" / name, 100 + number)
    assert sorted(levels(tmp_path)) == [0, 1, 2, 3, 4]
    assert sorted(levels(tmp_path, "test")) == [100, 101, 102, 103, 104]
    assert load(tmp_path).class_names == ("Test", "bus", "steam-train", "train", "validation")
    assert levels(tmp_path, where={"label": "train"}) == [1]


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "TEST"), ("training", "Testing")])
def test_splits_are_found_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    """Capitals, and training and testing, are the splits of a default experiment."""
    write(tmp_path / train, 1)
    write(tmp_path / test, 2)
    assert (levels(tmp_path), levels(tmp_path, "test")) == ([1], [2])


def test_the_layout_of_cyclegan_can_be_named(tmp_path: Path) -> None:
    """Folders trainA trainB testA testB are splits, and the error that names none of them says how."""
    for name, level in (("trainA", 1), ("trainB", 2), ("testA", 3), ("testB", 4)):
        write(tmp_path / name, level)
    for letter, first, second in (("A", 1, 3), ("B", 2, 4)):
        splits = {"train_split": f"train{letter}", "test_split": f"test{letter}"}
        assert (levels(tmp_path, **splits), levels(tmp_path, "test", **splits)) == ([first], [second])
    assert levels(tmp_path, train_split="trainA[:50%]+trainB") in ([2], [1, 2])
    with pytest.raises(DataError, match=r"'testA', 'testB', 'trainA', 'trainB'.+as in train_split = 'trainA'"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"source = '.+' with train_split = 'trainA' and test_split = 'testA'"):
        load(tmp_path / "trainA", "test")


def test_a_folder_without_splits_is_one(tmp_path: Path) -> None:
    """Photographs in a folder, or in folders of their classes, are learned from; held_out measures."""
    write(tmp_path / "day", *range(10))
    write(tmp_path / "day" / "2024", *range(10, 20))
    assert levels(tmp_path / "day") == list(range(20))
    with pytest.raises(DataError, match=r"no folder 'test'.+held_out = 0.1 takes a tenth of the training images"):
        load(tmp_path / "day", "test")
    assert len(levels(tmp_path / "day", "test", held_out=0.1)) == 2
    assert levels(tmp_path, train_split="day") == list(range(20))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_images", "test_images"),
        ("Real-Train", "real-test"),
        ("trainset", "testset"),
        ("training data", "val data"),
        ("01_train", "02_test"),
    ],
)
def test_folders_that_differ_by_the_split_alone_are_splits(tmp_path: Path, train: str, test: str) -> None:
    """No test image is learned from as one of a class, and the error names both folders."""
    write(tmp_path / train / "cat", 1)
    write(tmp_path / test / "cat", 2)
    with pytest.raises(DataError, match=rf"no folder 'train' .+ as in train_split = '{train}'"):
        load(tmp_path)
    splits = {"train_split": train, "test_split": test}
    assert (levels(tmp_path, **splits), levels(tmp_path, "test", **splits)) == ([1], [2])


def test_classes_that_have_a_word_of_splits_are_classes(tmp_path: Path) -> None:
    """A steam-train is no split beside a crash-test, nor is a trainer beside a tester."""
    for level, name in enumerate(("steam-train", "crash-test", "trainer", "tester")):
        write(tmp_path / name, level)
    assert load(tmp_path).class_names == ("crash-test", "steam-train", "tester", "trainer")


def test_an_accent_is_one_letter(tmp_path: Path) -> None:
    """A class from macOS, which takes letters apart, is the same in another split."""
    for split, name, level in (("train", unicodedata.normalize("NFD", "café"), 1), ("test", "café", 2)):
        write(tmp_path / split / name, level)
        write(tmp_path / split / "tea", 10 + level)
    assert load(tmp_path).class_names == load(tmp_path, "test").class_names
    assert len(load(tmp_path).class_names) == 2
    assert levels(tmp_path, where={"label": "caf\u00e9"}) == [1]


def test_truth_is_what_it_is_called(tmp_path: Path) -> None:
    """Of classes called true and false each is itself, whatever its number among others."""
    for level, name in enumerate(("false", "maybe", "true")):
        write(tmp_path / "train" / name, level)
    assert levels(tmp_path, where={"label": True}) == [2]
    assert levels(tmp_path, where={"label": False}) == [0]


def test_splits_that_lie_deeper_are_named(tmp_path: Path) -> None:
    """A folder around those of the splits is no class: its test images are not learned from."""
    write(tmp_path / "data" / "train", 1)
    write(tmp_path / "data" / "test", 2)
    with pytest.raises(DataError, match=r"data has folders \['test', 'train'\], .+: name it as source"):
        load(tmp_path)


@pytest.mark.parametrize("names", [("trainA", "trainB", "testA", "testB"), ("train_images", "test_images")])
def test_splits_of_other_names_that_lie_deeper_are_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As in an archive that was unpacked with the folder around it: no test image is learned from."""
    for level, name in enumerate(names):
        write(tmp_path / "set" / name, level)
    with pytest.raises(DataError, match="which are called as splits: name it as source"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("splits", "learned", "measured"),
    [
        ({"train_split": "old", "test_split": "new"}, ("cat", "dog", "fox"), ("cat", "fox")),
        ({}, ("Cat", "Dog"), ("cat", "dog")),
    ],
)
def test_a_class_has_one_number_in_all_splits(
    tmp_path: Path, splits: dict[str, str], learned: tuple[str, ...], measured: tuple[str, ...]
) -> None:
    """Whatever the splits are called, whichever classes each has, and with capitals or not."""
    called = {"train": splits.get("train_split", "train"), "test": splits.get("test_split", "test")}
    for use, classes in (("train", learned), ("test", measured)):
        for name in classes:
            write(tmp_path / called[use] / name, sum(map(ord, name.lower())) % 256)
    sets = [load(tmp_path, use, **splits) for use in called]
    assert sets[0].class_names == sets[1].class_names
    labels = [[] if one.labels is None else one.labels.tolist() for one in sets]
    shades = [one.images[:, 0, 0, 0].tolist() for one in sets]
    levels_of = [dict(zip(*pair, strict=True)) for pair in zip(shades, labels, strict=True)]
    assert levels_of[1].items() <= levels_of[0].items()


def test_classes_that_differ_by_capitals_alone_are_two(tmp_path: Path) -> None:
    """A split with c and C has both, and another is read alike."""
    for name in ("c", "C"):
        write(tmp_path / "train" / name, ord(name))
    for name in ("c", "x"):
        write(tmp_path / "test" / name, ord(name))
    assert load(tmp_path).class_names == load(tmp_path, "test").class_names == ("C", "c", "x")


def test_splits_may_be_packed(tmp_path: Path) -> None:
    """An archive of a split is read as its folder is: suffixes in any case, classes, nothing of a system."""
    for split, first in (("train", 1), ("test", 11)):
        write(tmp_path / "photos" / "cat", first)
        write(tmp_path / "photos" / "dog", first + 1, suffix=".Png")
        write(tmp_path / "photos" / "__MACOSX", 90)
        (tmp_path / "packed").mkdir(exist_ok=True)
        shutil.make_archive(str(tmp_path / "packed" / split), "zip", tmp_path, "photos")
        shutil.rmtree(tmp_path / "photos")
    loaded = load(tmp_path / "packed")
    assert loaded.class_names == ("cat", "dog")
    assert levels(tmp_path / "packed") == [1, 2]
    assert levels(tmp_path / "packed", "test") == levels(tmp_path / "packed", "test") == [11, 12]
    (tmp_path / "packed" / "train.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"train\.zip cannot be unpacked"):
        load(tmp_path / "packed")


@pytest.mark.parametrize("name", ["train.zip", "Train.ZIP", "training.zip"])
def test_an_archive_with_both_splits_is_read_by_their_names(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No test image in it is learned from, which is said; its name counts in any case, and as that of a folder."""
    write(tmp_path / "photos" / "train", 1, 2)
    write(tmp_path / "photos" / "test", 9)
    (tmp_path / "packed").mkdir()
    made = shutil.make_archive(str(tmp_path / "packed" / "made"), "zip", tmp_path / "photos")
    Path(made).rename(tmp_path / "packed" / name)
    assert levels(tmp_path / "packed", held_out=0.5)[0] in (1, 2)
    assert {*levels(tmp_path / "packed", held_out=0.5), *levels(tmp_path / "packed", "test", held_out=0.5)} == {1, 2}
    said = f"{tmp_path / 'packed' / name}: images in folder train are read, and not folders ['test']"
    assert caplog.messages.count(said) == 1


def test_what_an_archive_loses_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two files of one name the last is unpacked, as by any program; a path beside the folders is not read."""
    picture = write(tmp_path / "photos", 1, 2) / "001.png"
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.write(picture, "a.png")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.write(tmp_path / "photos" / "002.png", "a.png")
    shutil.rmtree(tmp_path / "photos")
    assert levels(tmp_path) == [2]
    said = f"{tmp_path / 'train.zip'} has several files of one name, and the last of each counts: a.png"
    assert caplog.messages.count(said) == 1


def test_a_table_beside_folders_of_images_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its classes are not read, unless a field names a column of it: that is said."""
    write(tmp_path / "train", 1, 2)
    (tmp_path / "train.csv").write_text("image,label\ntrain/001.png,0\ntrain/002.png,1\n")
    assert levels(tmp_path) == [1, 2]
    assert f"{tmp_path}: images in folders are read, and not tables: {tmp_path / 'train.csv'}" in caplog.messages


def test_images_in_no_split_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What lies beside the folders of splits is in none, and that is said."""
    write(tmp_path / "train", 1)
    write(tmp_path / "extra", 2)
    write(tmp_path, 3)
    assert levels(tmp_path) == [1]
    assert caplog.messages == [
        f"{tmp_path}: images in folders ['extra'] and the source itself are in no split and are not read"
    ]


def test_a_split_of_two_names_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of Train and training one is read, and the other is said not to be."""
    write(tmp_path / "Train", 1)
    write(tmp_path / "training", 2)
    write(tmp_path / "test", 3)
    assert levels(tmp_path) == [1]
    assert caplog.messages == [f"{tmp_path}: images in folders ['training'] are in no split and are not read"]


def test_no_image_is_in_two_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link from one split into another is refused, and the same files from elsewhere are reported."""
    write(tmp_path / "train", 1)
    test = write(tmp_path / "test", 2)
    (tmp_path / "train" / "more").symlink_to(test)
    with pytest.raises(DataError, match=r"train/more/002.png and .+test/002.png are one file by a link"):
        load(tmp_path)
    (tmp_path / "train" / "more").unlink()
    os.link(tmp_path / "test" / "002.png", tmp_path / "train" / "twin.png")
    assert levels(tmp_path) == [1, 2]
    assert "1 images of 'train' are in 'test' too, by links" in caplog.text


def test_classes_that_are_numbers_are_numbered_by_their_value(tmp_path: Path) -> None:
    """07 is 7, and 10 comes after 9, so that folders agree with sets of the hub."""
    for name in ("07", "10", "9"):
        write(tmp_path / "train" / name, int(name))
    loaded = load(tmp_path)
    assert loaded.labels is not None
    assert sorted(loaded.labels.tolist()) == [7, 9, 10]
    assert loaded.class_names == tuple(map(str, range(11)))
    assert levels(tmp_path, where={"label": 7}) == levels(tmp_path, where={"label": "7"}) == [7]


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
    """The line has counts, files and reasons: other formats, archives, backups, links to nothing, hidden images."""
    train = write(tmp_path / "train", 1)
    backups = ("d.jpg.part", "e.png~", "f.jpg_original", "g.png.orig", "h.JPG.Temp", "i.png.filepart", "j.png.~1~")
    for name in ("a.heic", "b.HEIC", "c.nef", "more.zip", ".IMG_9.HEIC.icloud", *backups):
        (train / name).write_bytes(b"x")
    write(train, 8, suffix=".THM", kind="JPEG")
    bins = ("#snapshot", "$RECYCLE.BIN", "@Recently-Snapshot", "@Recycle", "RECYCLER", "found.000")
    for name in bins:
        write(train / name, 9)
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
        f"7 (unfinished files or backups): {train}/d.jpg.part, {train}/e.png~, ",
        f"6 (deleted files, snapshots and fragments): {', '.join(f'{train}/{name}' for name in bins[:5])} and 1 more",
        f"1 (thumbnails of videos): {train}/008.THM",
        f"1 (in iCloud alone: download them): {train}/.IMG_9.HEIC.icloud",
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
    """Of files with several pages or frames the first counts, and that is said."""
    train = write(tmp_path / "train", 1)
    first, second = (Image.new("L", SIZE, level) for level in (21, 22))
    first.save(train / "scan.tif", save_all=True, append_images=[second])
    first.save(train / "walk.gif", save_all=True, append_images=[second])
    assert levels(tmp_path) == [1, 21, 21]
    named = f"{train}/scan.tif, {train}/walk.gif"
    assert f"of 2 files with several pages or frames the first is read: {named}" in caplog.text


def test_images_that_show_nothing_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Dark ink on a transparent ground, and masks of 0 and 1, are black."""
    train = tmp_path / "train"
    train.mkdir()
    ink = Image.new("RGBA", SIZE)
    ink.paste((0, 0, 0, 255), (0, 0, 4, 4))
    mask = Image.new("L", SIZE)
    mask.paste(1, (0, 0, 4, 4))
    seen = Image.new("L", SIZE)
    seen.paste(255, (0, 0, 4, 4))
    for name, image in {"ink": ink, "mask": mask, "seen": seen}.items():
        image.save(train / f"{name}.png")
    load(tmp_path)
    assert "2 of 3 images are of one level everywhere; what is transparent lies on black" in caplog.text
