"""Classes are compared by number, and only where these are the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.config.data import DomainConfig
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import load_held_out, load_split
from training.data.labels import class_mismatch
from training.errors import ConfigError, DataError

SIZE = (28, 28)
LESSON = {"lessons": [{"name": "labels", "weight": 1.0}]}
COUPLING = {"couplings": [{"name": "semantic", "weight": 1.0}]}


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


@pytest.mark.parametrize("compared", [LESSON, COUPLING])
def test_auxiliary_losses_and_the_semantic_coupling_need_the_same_classes(
    tmp_path: Path, compared: dict[str, Any]
) -> None:
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
