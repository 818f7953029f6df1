"""Image sets in memory: which images a domain has, and their labels."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.picture_sets import SIZE, Columns, pictures, write_split
from training.config.data import DomainConfig
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import ImageSet, load_split, load_training_sets
from training.errors import DataError


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
    """Return the level of each image, which tells it from all others."""
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
    shown = [levels(sets["digit"]), [255 - level for level in levels(sets["negative"])], levels(sets["twin"])]
    assert [len(part) for part in shown] == [7, 7, 7]
    assert sorted(itertools.chain(*shown)) == [10 * i for i in range(21)]


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
    shown = {name: set(levels(images)) for name, images in sets.items()}
    shown["copy"] = {255 - level for level in shown["copy"]}
    assert all(shown.values())
    assert sorted(itertools.chain(*shown.values())) == list(range(0, 210, 5))


def test_different_sources_are_not_shared_out(numbered: Path, digits_folder: Path) -> None:
    """A domain alone on its source and split has all images of it."""
    experiment = coupled(
        {"name": "digit", "source": str(digits_folder)},
        {"name": "level", "source": str(numbered)},
        {"name": "other", "source": str(numbered), "train_split": "test"},
    )
    sets = load_training_sets(experiment)
    assert {name: len(loaded.images) for name, loaded in sets.items()} == {
        "digit": 300,
        "level": 21,
        "other": 21,
    }


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


@pytest.mark.parametrize("labels", [[0.5, 1.0], [-2, 1], [[0, 1], [1, 0]]])
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: list[Any]) -> None:
    """Shares, signs and vectors are not cut down to whole numbers from 0, which classes are."""
    np.savez(tmp_path / "train.npz", image=np.zeros((2, *SIZE), np.uint8), label=np.array(labels))
    with pytest.raises(DataError, match=r"label_column 'label' of .+ whole numbers from 0"):
        load_split(DomainConfig("digit", source=str(tmp_path)), "train", SIZE)


@pytest.mark.parametrize("labels", [[-1, -1], [-1, 1]])
def test_the_hubs_number_of_no_class_is_none(tmp_path: Path, labels: list[int]) -> None:
    """Images that have no classes, or not all of them, train all the same."""
    np.savez(tmp_path / "train.npz", image=np.zeros((2, *SIZE), np.uint8), label=np.array(labels))
    assert load_split(DomainConfig("digit", source=str(tmp_path)), "train", SIZE).labels is None


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
    ("column", "said"),
    [
        ("Bald", r"label_columns \['Bald'\] are not among the columns \['image', 'Male', 'Sign'\]"),
        ("Sign", r"label_columns: 'Sign' of .+ holds -1; attributes are true and false, or 1 and 0"),
    ],
)
def test_what_is_no_attribute_is_refused(tmp_path: Path, column: str, said: str) -> None:
    """A column that is missing, and one of other values, are named with what is there."""
    faces: Columns = {"image": pictures(1, 2), "Male": [True, False], "Sign": [1, -1]}
    source = write_split(tmp_path / "faces", "train", faces)
    domain = DomainConfig("face", source=str(source), label_columns=("Male", column))
    with pytest.raises(DataError, match=rf"domain face: {said}"):
        load_split(domain, "train", SIZE)


def test_a_domain_learns_from_as_many_images_as_it_asks_for(numbered: Path) -> None:
    """They are drawn by the seed, out of the domain's own share; asking for more than that is refused."""

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
