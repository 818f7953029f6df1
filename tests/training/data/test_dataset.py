"""Image sets of domains: shared out, paired, labelled; classes of several sources agree."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.picture_sets import SIZE, Columns, pictures, write_split
from training.config.data import DomainConfig
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import (
    ImageSet,
    class_mismatch,
    load_held_out,
    load_pairs,
    load_split,
    load_training_sets,
    report_learned,
)
from training.errors import ConfigError, DataError


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Return a folder laid out like the hub's: 21 grey images a split, each of one level of its own."""
    words = ["one", "two", "three"] * 7
    for split, first in (("train", 0), ("test", 5)):
        images = pictures(*range(first, 210, 10))
        write_split(tmp_path / "numbered", split, {"image": images, "label": list(range(21)), "word": words})
    return tmp_path / "numbered"


def coupled(*domains: dict[str, Any], seed: int = 0) -> Experiment:
    """Make an experiment of domains."""
    return parse_experiment({"name": "a", "data_license": "none", "domains": domains, "seed": seed})


def levels(images: ImageSet) -> list[int]:
    """Return the level of each image, which identifies it."""
    return [int(level) for level in images.images[:, 0, 0, 0]]


def test_domains_of_one_split_share_no_image(numbered: Path) -> None:
    """Every image goes to exactly one domain, in equal shares, whatever transforms and names hide it."""
    path = str(numbered)
    experiment = coupled(
        {"name": "digit", "source": path},
        {"name": "negative", "source": f"{path}/../numbered", "transform": "negative"},
        {"name": "twin", "source": path},
    )
    sets = load_training_sets(experiment)
    found = [levels(sets["digit"]), [255 - level for level in levels(sets["negative"])], levels(sets["twin"])]
    assert [len(part) for part in found] == [7, 7, 7]
    assert sorted(itertools.chain(*found)) == [10 * i for i in range(21)]


def test_shares_follow_from_the_seed(numbered: Path) -> None:
    """The same seed shares out alike, another one differently; labels go with their images."""
    domains = [{"name": "digit", "source": str(numbered)}, {"name": "twin", "source": str(numbered)}]
    first, again, other = (load_training_sets(coupled(*domains, seed=seed))["digit"] for seed in (3, 3, 4))
    assert levels(first) == levels(again) != levels(other)
    assert first.labels is not None
    assert [10 * int(label) for label in first.labels] == levels(first)


def test_overlaps_are_shared_out_however_they_are_spelled(numbered: Path, tmp_path: Path) -> None:
    """Half a split, a copy of its folder and a folder around it hold the same images: none serves twice."""
    shutil.copytree(numbered, tmp_path / "copied")
    sets = load_training_sets(
        coupled(
            {"name": "whole", "source": str(numbered)},
            {"name": "part", "source": str(numbered), "train_split": "train[:50%]+test"},
            {"name": "copy", "source": str(tmp_path / "copied"), "transform": "negative"},
            {"name": "around", "source": str(tmp_path), "where": {"word": "one"}},
        )
    )
    found = {name: set(levels(images)) for name, images in sets.items()}
    found["copy"] = {255 - level for level in found["copy"]}
    assert all(found.values())
    assert sorted(itertools.chain(*found.values())) == list(range(0, 210, 5))


def test_different_sources_are_not_shared_out(numbered: Path, digits_folder: Path) -> None:
    """A domain alone on its source and split has all images of it."""
    experiment = coupled(
        {"name": "digit", "source": str(digits_folder)},
        {"name": "level", "source": str(numbered)},
        {"name": "other", "source": str(numbered), "train_split": "test"},
    )
    sets = load_training_sets(experiment)
    assert {name: len(loaded.images) for name, loaded in sets.items()} == {"digit": 300, "level": 21, "other": 21}


def test_an_image_folder_has_its_folders_as_labels(digits_folder: Path) -> None:
    """<split>/<label>/<image> gives uint8 [N, C, H, W] and int64 labels."""
    loaded = load_split(DomainConfig("digit", source=str(digits_folder)), "test", SIZE)
    assert loaded.images.shape == (100, 1, 28, 28)
    assert loaded.images.dtype == torch.uint8
    assert loaded.images.float().std() > 50
    assert loaded.labels is not None
    assert loaded.labels.unique().tolist() == list(range(10))


def test_fewer_images_than_domains_are_refused(tmp_path: Path) -> None:
    """A domain that would be left without an image stops the run before it begins."""
    (tmp_path / "train").mkdir()
    Image.new("L", SIZE).save(tmp_path / "train" / "only.png")
    domains = [{"name": name, "source": str(tmp_path)} for name in ("digit", "twin")]
    with pytest.raises(DataError, match=r"domain twin: other domains want the images of .+none is left"):
        load_training_sets(coupled(*domains))


@pytest.mark.parametrize("labels", [[0.5, 1.0], [-2, 1], [-1, 1], [[0, 1], [1, 0]], [1, 10**12], ["1", "7" * 20]])
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: list[Any]) -> None:
    """Shares, signs and vectors are not cut down to whole numbers from 0, which classes are."""
    np.savez(tmp_path / "train.npz", image=np.zeros((2, *SIZE), np.uint8), label=np.array(labels))
    with pytest.raises(DataError, match=r"label_column 'label' of .+ whole numbers from 0"):
        load_split(DomainConfig("digit", source=str(tmp_path)), "train", SIZE)


NAMED = datasets.ClassLabel(names=["cat", "dog"])  # for which -1 is no class
NUMBERED = datasets.Value("int64")
PARTLY = (
    r"domain pet: 1 of 3 images of .+ have no class in column 'label', so that all count as unlabelled: row 1 of .+"
)


def about_domains(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log about domains; others are about their sources."""
    return [line for line in caplog.messages if line.startswith("domain ")]


@pytest.mark.parametrize(
    ("feature", "labels", "line"),
    [
        (NUMBERED, [-1, -1, -1], ""),
        (NUMBERED, [None, None, None], ""),
        (NAMED, [-1, -1, -1], ""),
        (NAMED, [0, -1, 1], PARTLY),
        (NUMBERED, [2, None, 1], PARTLY),
        (datasets.Value("float64"), [2.0, float("nan"), 1.0], PARTLY),
        (datasets.Value("string"), ["2", "", "1"], PARTLY),
    ],
)
def test_images_without_classes_train_all_the_same(
    tmp_path: Path, feature: Any, labels: list[Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If only some have none, the set counts as unlabelled, and which those are is reported."""
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    table = datasets.Dataset.from_dict({"image": pictures(1, 2, 3), "label": labels}, features)
    table.to_parquet(tmp_path / "train.parquet")
    assert load_split(DomainConfig("pet", source=str(tmp_path)), "train", SIZE).labels is None
    assert re.fullmatch(line, "".join(about_domains(caplog)))


def test_an_image_beside_the_folders_of_classes_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has no class, and nobody would know why a set has none."""
    source = folder(tmp_path, "cat", "dog")
    Image.new("L", SIZE, 9).save(source / "train" / "stray.png")
    assert load_split(DomainConfig("pet", source=str(source)), "train", SIZE).labels is None
    (line,) = about_domains(caplog)
    assert line.startswith("domain pet: 1 of 3 images")
    assert line.endswith("train/stray.png")


def test_whole_numbers_with_a_point_are_classes(tmp_path: Path) -> None:
    """A table whose last rows are empty holds them so; rows without an image do not count."""
    Image.new("L", SIZE).save(tmp_path / "0.png")
    (tmp_path / "train.csv").write_text("image,label\n0.png,3\n0.png,1\n,\n,\n")
    labels = load_split(DomainConfig("digit", source=str(tmp_path)), "train", SIZE).labels
    assert labels is not None
    assert labels.tolist() == [3, 1]


def test_an_attribute_is_a_label_too(tmp_path: Path) -> None:
    """Yes and no are two classes."""
    faces: Columns = {"image": pictures(1, 2, 3), "Smiling": [True, False, True]}
    source = write_split(tmp_path / "faces", "train", faces)
    loaded = load_split(DomainConfig("face", source=str(source), label_column="Smiling"), "train", SIZE)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [1, 0, 1]


def test_several_attributes_are_a_row_of_labels(tmp_path: Path) -> None:
    """Each image has a 1 or a 0 for each column, in the order asked for."""
    faces: Columns = {"image": pictures(1, 2, 3), "Male": [True, False, False], "Young": [1, 0, 1]}
    source = write_split(tmp_path / "faces", "train", faces)
    domain = DomainConfig("face", source=str(source), label_columns=("Young", "Male"))
    loaded = load_split(domain, "train", SIZE)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [[1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("Bald", r"label_columns \['Bald'\] are not among the columns \['image', 'Male', 'Sign'\]"),
        ("Sign", r"label_columns: 'Sign' of .+ holds -1; attributes are true and false, or 1 and 0"),
    ],
)
def test_what_is_no_attribute_is_refused(tmp_path: Path, column: str, message: str) -> None:
    """A column that is missing, and one of other values, are named with what is there."""
    faces: Columns = {"image": pictures(1, 2), "Male": [True, False], "Sign": [1, -1]}
    source = write_split(tmp_path / "faces", "train", faces)
    domain = DomainConfig("face", source=str(source), label_columns=("Male", column))
    with pytest.raises(DataError, match=rf"domain face: {message}"):
        load_split(domain, "train", SIZE)


def test_a_domain_learns_from_as_many_images_as_it_asks_for(numbered: Path) -> None:
    """They are sampled by the seed, out of the domain's own share; asking for more than that is refused."""

    def learned(seed: int, count: int | None) -> list[int]:
        twin = {"name": "twin", "source": str(numbered)}
        digit = {"name": "digit", "source": str(numbered), "count": count}
        return levels(load_training_sets(coupled(digit, twin, seed=seed))["digit"])

    few, share = learned(1, 4), learned(1, None)
    assert (len(few), len(share)) == (4, 11)
    assert set(few) < set(share)
    assert few == learned(1, 4) != learned(2, 4)
    assert few != sorted(few)
    with pytest.raises(DataError, match=r"domain digit: count = 12, and its share of .+ is 11 images"):
        learned(1, 12)


@pytest.fixture
def alphabet(tmp_path: Path) -> Path:
    """Return a table of true pairs: 40 rows of an upright, an italic and, not in each, a bold picture."""
    for split, first in (("train", 0), ("test", 200)):
        numbers = range(first, first + 40)
        columns: Columns = {
            "upright": pictures(*numbers),
            "italic": pictures(*numbers, size=(20, 28)),
            "bold": [*pictures(*numbers, size=(28, 20))[:30], *[None] * 10],
            "family": [f"f{number % 8}" for number in numbers],
        }
        write_split(tmp_path / "alphabet", split, columns)
    return tmp_path / "alphabet"


def letters(source: Path, **fields: Any) -> list[dict[str, Any]]:
    """Return domains of the columns of true pairs."""
    return [
        {"name": name, "source": str(source), "image_column": name} | fields for name in ("upright", "italic", "bold")
    ]


def test_a_row_goes_to_one_domain_alone(alphabet: Path, tmp_path: Path) -> None:
    """Columns of one table are pairs, also in a copy: no domain learns another one's counterpart."""
    shutil.copytree(alphabet, tmp_path / "copied")
    domains = letters(alphabet)
    domains[1]["source"] = str(tmp_path / "copied")
    found = [levels(images) for images in load_training_sets(coupled(*domains)).values()]
    assert sorted(itertools.chain(*found)) == list(range(40))
    assert [len(part) for part in found] == [15, 15, 10]


def test_a_group_of_rows_goes_to_one_domain_alone(alphabet: Path) -> None:
    """All letters of a family do, and what is held out is of families that are not learned from."""
    found = [levels(images) for images in load_training_sets(coupled(*letters(alphabet, group="family"))).values()]
    families = [{level % 8 for level in part} for part in found]
    assert sorted(itertools.chain(*families)) == list(range(8))
    fields: dict[str, Any] = {"image_column": "upright", "group": "family", "held_out": 0.25}
    domain = DomainConfig("upright", source=str(alphabet), **fields)
    learned, measured = ({level % 8 for level in levels(load_split(domain, use, SIZE))} for use in ("train", "test"))
    assert (len(learned), len(measured)) == (6, 2)
    assert not learned & measured


def test_groups_that_are_numbers_are_compared_by_value(tmp_path: Path) -> None:
    """A column of whole numbers with a gap is read as 1.0: its family is that of 1 in another table."""
    for name, written in (("a", "{}"), ("b", "{}.0")):
        (tmp_path / name).mkdir()
        for number in range(8):
            shade = np.full((*SIZE, 3), 10 * number + (name == "b"), np.uint8)
            Image.fromarray(shade).save(tmp_path / name / f"{number}.png")
        lines = [f"{number}.png,{written.format(number)}" for number in range(8)]
        (tmp_path / name / "metadata.csv").write_text("\n".join(["file_name,family", *lines]))
    domains = [{"name": name, "source": str(tmp_path / name), "group": "family", "channels": 3} for name in "ab"]
    learned = [
        {level // 10 for level in images.images[:, 0, 0, 0].tolist()}
        for images in load_training_sets(coupled(*domains)).values()
    ]
    assert not learned[0] & learned[1]


def test_a_column_of_another_kind_is_no_counterpart(tmp_path: Path) -> None:
    """One of numbers that is called as another domain's images are."""
    first = write_split(tmp_path / "a", "train", {"image": pictures(0, 10), "photo": [1, 2]})
    second = write_split(tmp_path / "b", "train", {"photo": pictures(20, 30)})
    columns = {"image": first, "photo": second}
    domains = [{"name": name, "source": str(source), "image_column": name} for name, source in columns.items()]
    sets = load_training_sets(coupled(*domains))
    assert [len(images.images) for images in sets.values()] == [2, 2]


def test_columns_that_only_share_a_table_are_no_pairs(alphabet: Path) -> None:
    """Sets of the hub that put unpaired images side by side are learned from whole."""
    sets = load_training_sets(coupled(*letters(alphabet, paired_columns=False)))
    assert [len(images.images) for images in sets.values()] == [40, 40, 30]
    assert load_pairs(coupled(*letters(alphabet, paired_columns=False))) == {}


def test_rows_that_are_held_out_are_so_in_all_columns(alphabet: Path) -> None:
    """No counterpart of a picture that is measured against is learned from, though a column has gaps."""
    domains = [DomainConfig(**fields) for fields in letters(alphabet, held_out=0.2)]
    measured = {level for domain in domains for level in levels(load_split(domain, "test", SIZE))}
    learned = {level for domain in domains for level in levels(load_split(domain, "train", SIZE))}
    assert not learned & measured
    assert len(measured) == 8


def test_the_pairs_of_test_rows_are_kept_to_measure(alphabet: Path, tmp_path: Path) -> None:
    """Images of one row are in one place of every domain; domains of other tables have none."""
    other = {"name": "other", "source": str(write_split(tmp_path / "other", "test", {"image": pictures(1)}))}
    pairs = load_pairs(coupled(*letters(alphabet), other))
    assert pairs.keys() == {"upright", "italic", "bold"}
    assert [levels(images) for images in pairs.values()] == [list(range(200, 230))] * 3
    assert load_pairs(coupled(other)) == {}


LESSON = {"lessons": [{"name": "labels", "weight": 1.0}]}
BY_CLASSES = [{"couplings": [{"name": name, "weight": 1.0}]} for name in ("semantic", "classes")]


def folder(path: Path, *classes: str) -> Path:
    """Write a folder of images with a folder for each class, train and test."""
    for split in ("train", "test"):
        for shade, name in enumerate(classes):
            (path / split / name).mkdir(parents=True)
            Image.new("L", SIZE, 50 * shade).save(path / split / name / f"{split}.png")
    return path


def experiment(first: Path, second: Path, **changes: Any) -> Experiment:
    """Return one of two such domains."""
    domains = [
        {"name": "ours", "source": str(first), "labelled": "lessons" in changes},
        {"name": "theirs", "source": str(second)},
    ]
    return parse_experiment({"name": "pets", "data_license": "none", "domains": domains} | changes)


def test_one_image_is_too_few_to_measure_against(tmp_path: Path) -> None:
    """No distance to it can be computed at the end, so it is an error at the start."""
    for split, count in (("train", 3), ("test", 1)):
        (tmp_path / split).mkdir()
        for number in range(count):
            Image.new("L", SIZE, number).save(tmp_path / split / f"{number}.png")
    with pytest.raises(DataError, match=r"domain a: there is one image to measure against; two are needed"):
        load_held_out(coupled({"name": "a", "source": str(tmp_path)}))


def test_test_images_that_are_learned_from_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy in the training images of another domain counts, as it is known by its bytes."""
    for number, folder in enumerate(("a/train", "a/test", "b/train", "b/test")):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.full((*SIZE, 3), number, np.uint8)).save(tmp_path / folder / f"{number}.png")
    shutil.copy(tmp_path / "a/test/1.png", tmp_path / "b/train/copy.png")
    experiment = coupled(*({"name": name, "source": str(tmp_path / name), "channels": 3} for name in "ab"))
    report_learned(experiment, load_training_sets(experiment))
    (line,) = about_domains(caplog)
    assert line.startswith("domain a: of 1 images that it is measured against, 1 are learned from")
    assert line.endswith("copy.png")


@pytest.mark.parametrize("compared", [LESSON, *BY_CLASSES])
def test_what_compares_classes_needs_the_same_ones(tmp_path: Path, compared: dict[str, Any]) -> None:
    """A class that one folder lacks moves the numbers of all behind it, which is said before training."""
    ours, theirs = folder(tmp_path / "ours", "cat", "dog"), folder(tmp_path / "theirs", "dog", "wolf")
    with pytest.raises(DataError, match="class 0 of domain theirs is 'dog', and that of ours 'cat'; lessons"):
        load_held_out(experiment(ours, theirs, **compared))
    more = folder(tmp_path / "more", "cat", "dog", "wolf")
    with pytest.raises(DataError, match="domain theirs has 3 classes and ours 2"):
        load_held_out(experiment(ours, more, **compared))
    load_held_out(experiment(ours, theirs))
    load_held_out(experiment(ours, folder(tmp_path / "same", "cat", "dog"), **compared))


def test_merged_classes_are_one(tmp_path: Path) -> None:
    """Classes that look the same count as one, called by the first name; those behind move up."""
    source = folder(tmp_path / "ours", "a", "b", "c", "d")
    fields: dict[str, Any] = {"name": "ours", "source": str(source)}
    images = load_split(DomainConfig(**fields, merged_classes=(("a", "c"),)), "train", SIZE)
    assert images.class_names == ("a", "b", "d")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 0, 2]
    with pytest.raises(DataError, match=r"merged_classes names 'A', and .* has the classes a, b, c, d"):
        load_split(DomainConfig(**fields, merged_classes=(("a", "A"),)), "train", SIZE)
    with pytest.raises(ConfigError, match=r"merged_classes names \['b'\] more than once"):
        parse_experiment(
            {"name": "pets", "data_license": "none", "domains": [fields | {"merged_classes": [["a", "b"], ["b", "c"]]}]}
        )


def test_images_without_classes_fit_any(tmp_path: Path) -> None:
    """Images of a folder for each split have none, though the library calls the splits' folders so."""
    ours = folder(tmp_path / "ours", "cat", "dog")
    for split in ("train", "test"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for shade in (1, 2):
            Image.new("L", SIZE, shade).save(tmp_path / "flat" / split / f"{shade}.png")
    load_held_out(experiment(ours, tmp_path / "flat", **LESSON))


def test_what_measures_a_run_is_looked_at_before_it(tmp_path: Path) -> None:
    """Patches without a test split, and attributes that it lacks, would come to light too late."""
    ours = folder(tmp_path / "ours", "cat", "dog")
    (tmp_path / "patches" / "train").mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "patches" / "train" / "0.png")
    for fields, message in (
        ({"channels": 3, "patches": [{"source": str(tmp_path / "patches")}]}, "split .test. cannot be loaded"),
        ({"label_columns": ["Male"]}, r"label_columns \['Male'\] are not among"),
    ):
        domain = {"name": "ours", "source": str(ours), **fields}
        with pytest.raises(DataError, match=f"domain ours: .*{message}"):
            load_held_out(parse_experiment({"name": "a", "data_license": "none", "domains": [domain]}))


def test_a_damaged_test_image_is_found_before_training(tmp_path: Path) -> None:
    """Its row can be opened and has a class, but measuring would stop at it when training is over."""
    ours, theirs = folder(tmp_path / "ours", "cat", "dog"), folder(tmp_path / "theirs", "cat", "dog")
    (theirs / "test" / "dog" / "test.png").write_text("no image")
    with pytest.raises(DataError, match=r"domain theirs: image .+dog/test\.png of .+ cannot be read"):
        load_held_out(experiment(ours, theirs))


def test_sources_that_name_no_classes_fit_any() -> None:
    """Numbers alone say nothing of what they mean; the first that names its classes is compared with."""
    assert not class_mismatch({"numbers": (), "ours": ("a", "b"), "others": ()})
    message = class_mismatch({"numbers": (), "ours": ("a", "b"), "theirs": ("a", "c")})
    assert message == "class 1 of domain theirs is 'c', and that of ours 'b'"


def test_classes_are_compared_as_they_are_called() -> None:
    """Numbers by their value, and words whatever their case."""
    assert not class_mismatch({"ours": ("07", "cat"), "theirs": ("7", "Cat ")})
    assert class_mismatch({"ours": ("07",), "theirs": ("70",)})


def test_a_set_knows_what_its_classes_are_called(tmp_path: Path) -> None:
    """Folders of classes are named in the order of their numbers."""
    domain = DomainConfig("pet", source=str(folder(tmp_path, "dog", "cat")))
    assert load_split(domain, "test", SIZE).class_names == ("cat", "dog")
