"""Sources of images, and the errors of those that cannot be read."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.data.picture_sets import SIZE, Columns, pictures, write_configurations, write_split
from training.config.data import DomainConfig
from training.data.dataset import ImageSet, load_split
from training.data.sources import join_rows, locate, share_out, share_out_images
from training.errors import DataError


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Return a folder laid out like the hub's: three images in a split, with a label and a word each."""
    columns: Columns = {"image": pictures(0, 10, 20), "label": [0, 1, 2], "word": ["one", "two", "three"]}
    for split in ("train", "test"):
        write_split(tmp_path / "words", split, columns)
    return tmp_path / "words"


def load(source: Path | str, split: str = "train", **changes: Any) -> ImageSet:
    """Load a split of a source as a domain that says no more than is asked."""
    return load_split(DomainConfig("digit", source=str(source), train_split=split, **changes), "train", SIZE)


def levels(images: ImageSet) -> list[int]:
    """Return the level of each image."""
    return [int(level) for level in images.images[:, 0, 0, 0]]


def test_rows_count_if_columns_have_the_given_values(tmp_path: Path) -> None:
    """CelebA by attribute, as the hub has it: those with it in one domain and the rest in another."""
    smiling = [True, False, True, False, False]
    faces: Columns = {"image": pictures(0, 10, 20, 30, 40), "celeb_id": [1, 1, 2, 3, 4], "Smiling": smiling}
    source = write_split(tmp_path / "celeba", "train", faces)
    assert levels(load(source, where={"Smiling": True})) == [0, 20]
    assert levels(load(source, where={"Smiling": False})) == [10, 30, 40]
    assert levels(load(source, where={"Smiling": False, "celeb_id": 1})) == [10]
    assert levels(load(source, where={"celeb_id": "04"})) == [40]


def test_rows_without_an_image_do_not_count(tmp_path: Path) -> None:
    """Apples and oranges, as the hub has them: unequal sets share a table, and one column ends early."""
    table: Columns = {"imageA": [*pictures(0, 10), None, None], "imageB": pictures(20, 30, 40, 50)}
    source = write_split(tmp_path / "apple2orange", "train", table)
    assert levels(load(source, image_column="imageA")) == [0, 10]
    assert levels(load(source, image_column="imageB")) == [20, 30, 40, 50]


def test_what_is_held_out_is_measured_against_and_not_learned_from(tmp_path: Path) -> None:
    """One draw divides a source that has no split to measure against, or pools those that it has."""
    for split, numbers in (("train", range(8)), ("test", range(8, 10))):
        write_split(tmp_path / "numbers", split, {"image": pictures(*numbers)})
    domain = DomainConfig(
        "number", source=str(tmp_path / "numbers"), train_split="train+test", held_out=0.3, test_split="none"
    )
    learned, measured = (levels(load_split(domain, use, SIZE)) for use in ("train", "test"))
    assert (len(learned), len(measured)) == (7, 3)
    assert sorted(learned + measured) == list(range(10))
    assert measured == levels(load_split(replace(domain, name="again"), "test", SIZE)) != [7, 8, 9]
    with pytest.raises(DataError, match=r"held_out = 0.04 of the 10 images .+ leaves 0 to measure against"):
        load_split(replace(domain, held_out=0.04), "train", SIZE)


def test_a_configuration_is_chosen_by_its_name(tmp_path: Path) -> None:
    """SVHN, as the hub has it: cropped digits beside full numbers; which one must be said."""
    for level, name in ((0, "cropped_digits"), (10, "full_numbers")):
        for split in ("train", "test"):
            write_split(tmp_path / "svhn" / name, split, {"image": pictures(level), "label": [1]})
    write_configurations(tmp_path / "svhn", ["cropped_digits", "full_numbers"])
    assert levels(load(tmp_path / "svhn", configuration="cropped_digits")) == [0]
    assert levels(load(tmp_path / "svhn", "test", configuration="full_numbers")) == [10]
    with pytest.raises(DataError, match=r"pick one among .+'cropped_digits', 'full_numbers'"):
        load(tmp_path / "svhn")


def test_folders_of_one_name_are_distinguished(tmp_path: Path) -> None:
    """What was read of another folder, or of this one before it changed, is not read again instead."""
    for level, place in ((1, "here"), (2, "there"), (3, "here")):
        source = tmp_path / place / "svhn"
        write_split(source / "cropped_digits", "train", {"image": pictures(level)})
        write_split(source / "cropped_digits", "test", {"image": pictures(level)})
        write_configurations(source, ["cropped_digits"])
        assert levels(load(source, configuration="cropped_digits")) == [level]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    """Neither an empty folder nor one of empty folders is taken for a set of no images."""
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"domain digit: source '.+empty', split 'train' cannot be loaded"):
        load(tmp_path / "empty")


def test_a_folder_below_the_data_root_comes_first(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub name's last part is looked for in $COGAN_DATA, and a name found nowhere is the hub's."""
    monkeypatch.setenv("COGAN_DATA", str(digits_folder.parent))
    assert locate("someone/digits") == str(digits_folder)
    assert locate("someone/else") == "someone/else"
    monkeypatch.setenv("COGAN_DATA", str(tmp_path))
    assert locate("someone/digits") == "someone/digits"


def test_an_existing_folder_comes_before_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named is read, whatever lies below $COGAN_DATA by its last part; ~ is the home."""
    for place in ("root/photos", "home/photos"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setenv("COGAN_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    for source in ("photos", "./photos", str(tmp_path / "home" / "photos"), "~/photos"):
        assert locate(source) == str(tmp_path / "home" / "photos")
    assert locate("else/photos") == str(tmp_path / "root" / "photos")
    (tmp_path / "home" / "photos").rmdir()
    assert locate("photos") == str(tmp_path / "root" / "photos")
    for source in ("./photos", "a/b/photos", "~/photos", str(tmp_path / "holiday" / "photos"), "~photos", "x" * 300):
        assert locate(source) == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no such", "neither is it a name of the hub"),
        ("./no/such", "neither is it a name of the hub"),
        ("~no-user", "no folder .+/~no-user, .+ and a path is read only as it is named"),
        ("x" * 300, "File name too long"),
        ("photos.zip", "is a file, and a source is a folder: unpack it"),
    ],
)
def test_what_is_no_name_of_the_hub_is_not_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    """The error says where the folder was looked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=message):
        load(source)


def test_a_hub_that_cannot_be_reached_is_tried_once(tmp_path: Path) -> None:
    """The error comes at once and says what was looked for, as it does with each of the next sources."""
    program = (
        "import sys, time\n"
        "from training.config.data import DomainConfig\n"
        "from training.data.dataset import load_split\n"
        "start = time.monotonic()\n"
        "try: load_split(DomainConfig('digit', source='no/such'), 'train', (28, 28))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "sys.exit(time.monotonic() - start > 5)\n"
    )
    offline = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **offline},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0
    assert "DataError domain digit: source 'no/such', split 'train' cannot be loaded: " in done.stdout
    assert "there is no folder" in done.stdout
    assert "the hub is not reached" in done.stdout


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        ({"source": "no/such"}, "train", ["domain digit", "'no/such'", "COGAN_DATA"]),
        ({}, "validation", ["'validation'", "['train', 'test']"]),
        ({"image_column": "img"}, "train", ["'img'", "['image', 'label', 'word']"]),
        ({"image_column": "label"}, "train", ["'label'", "int64", "not images"]),
        ({"label_column": "word"}, "train", ["'word'", "'one'", "whole numbers from 0"]),
        ({"group": "family"}, "train", ["group 'family'", "['image', 'label', 'word']"]),
        ({}, "train[:x%]", ["'train[:x%]'", "Unrecognized instruction"]),
        ({"configuration": "small"}, "train", ["'small' not found", "['default']"]),
        ({"where": {"colour": "red"}}, "train", ["where", "'colour'", "['image', 'label', 'word']"]),
        ({"where": {"word": "four"}}, "train", ["word = 'four'", "'one', 'three', 'two'"]),
        ({"where": {"word": "one", "label": 1}}, "train", ["'train'", "no image that counts"]),
    ],
)
def test_a_wrong_source_split_or_column_is_named(
    words: Path, changes: dict[str, Any], split: str, message: list[str]
) -> None:
    """The error names the domain, what was asked for and, where it can, what there is."""
    with pytest.raises(DataError) as caught:
        load(**({"source": words} | changes), split=split)
    assert all(part in str(caught.value) for part in message)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves the file open
@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda _: b"no image"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Among many images, the error says which one cannot be read."""
    (tmp_path / "train").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    for name in ("good", "bad"):
        Image.fromarray(pixels).save(tmp_path / "train" / f"{name}.png")
    bad = tmp_path / "train" / "bad.png"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError, match=r"image \S+bad\.png of .+ cannot be read"):
        load(tmp_path)


def test_shares_are_disjoint_and_equal() -> None:
    """Any count is split into shares that differ by one at most and make up the whole."""
    for count, shares in ((10, 1), (10, 3), (7, 5), (60_000, 2)):
        parts = share_out(count, shares, seed=1)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_image_goes_to_one_of_those_that_want_it() -> None:
    """Each image of any overlap is given exactly once, to a domain that wants it, each overlap equally."""
    wanted = {"all": range(100), "half": range(50), "end": range(40, 120)}
    given = share_out_images(wanted, seed=3)
    images = {name: {wanted[name][row] for row in rows} for name, rows in given.items()}
    assert sorted(itertools.chain(*images.values())) == list(range(120))
    assert {name: len(part & set(range(40))) for name, part in images.items()} == {"all": 20, "half": 20, "end": 0}
    assert {name: len(part & set(range(50, 100))) for name, part in images.items()} == {"all": 25, "half": 0, "end": 25}
    assert images["end"] >= set(range(100, 120))


def test_sharing_follows_from_the_seed() -> None:
    """The same seed gives the same rows in the same order, another one others."""
    wanted = {"one": "abcdefghij", "other": "abcdefghij"}
    assert share_out_images(wanted, 1) == share_out_images(wanted, 1) != share_out_images(wanted, 2)


def test_an_image_in_several_rows_stays_with_its_domain() -> None:
    """Copies of an image go together, so that no copy of it reaches another domain."""
    wanted = {"one": "aabbccdd", "other": "abcd"}
    given = share_out_images(wanted, seed=0)
    one, other = ({wanted[name][row] for row in given[name]} for name in wanted)
    assert len(given["one"]) == 2 * len(one) == 4
    assert one | other == set("abcd")
    assert one & other == set()


def test_the_first_rows_are_a_fair_sample() -> None:
    """However images are shared with others, a tenth of what a domain gets is a tenth of each overlap."""
    given = share_out_images({"all": range(3000), "some": range(2000)}, seed=0)
    first = given["all"][:200]
    assert sum(row < 2000 for row in first) == 100  # of 1000 that it has of the 2000 in both, and 1000 alone
    alone = share_out_images({"one": range(10)}, seed=0)["one"]
    assert alone == share_out(10, 1, seed=0)[0].tolist()


def test_rows_with_a_key_in_common_belong_together() -> None:
    """Keys tie rows of one domain and of several, also by way of others, and rows without any stay alone."""
    wanted = {"one": [["a", "A"], ["b"], ["c", "x"], ["y"]], "other": [["A"], ["B", "b"], ["x", "y"], ["z"]]}
    joined = join_rows(wanted)
    assert joined["one"][0] == joined["other"][0]
    assert joined["one"][1] == joined["other"][1]
    assert joined["one"][2] == joined["one"][3] == joined["other"][2]
    assert len({*joined["one"], *joined["other"]}) == 4
