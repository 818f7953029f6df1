"""Classifiers of a domain's own images, and the files that keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training.config.data import DomainConfig
from training.data.dataset import load_split
from training.errors import RunError
from training.pretrained.classifier import Classifier, accuracy, classifier_file, fit, load_classifier, save_classifier

SIZE = (28, 28)


def test_a_classifier_learns_and_is_kept(digits_folder: Path, tmp_path: Path) -> None:
    """A few epochs on 300 digits tell most test digits apart, and the file gives back the same judge."""
    domain = DomainConfig("digit", source=str(digits_folder))
    classifier = Classifier("digit", channels=1, classes=10)
    fit(classifier, load_split(domain, "train", SIZE), epochs=6, seed=0)
    test_set = load_split(domain, "test", SIZE)
    share = accuracy(classifier, test_set)
    assert share > 0.8
    file = classifier_file(tmp_path / "new", domain, SIZE)
    save_classifier(classifier, file)
    again = load_classifier(file)
    assert torch.equal(again(test_set.images), classifier(test_set.images))
    assert accuracy(again, test_set) == share


def test_classifiers_of_different_images_have_different_files(tmp_path: Path) -> None:
    """The name tells apart all that a domain's images depend on, and nothing else."""
    base: dict[str, Any] = {"name": "digit", "source": "a/mnist"}

    def file(size: tuple[int, int] = SIZE, **change: Any) -> Path:
        return classifier_file(tmp_path, DomainConfig(**(base | change)), size)

    others: list[dict[str, Any]] = [
        {"transform": "edge"},
        {"channels": 3},
        {"margin": 3},
        {"train_split": "train[:50%]"},
        {"source": "b/mnist"},
        {"source": "a/usps"},
        {"image_column": "img"},
        {"size": (32, 32)},
    ]
    assert len({file(), *(file(**change) for change in others)}) == 1 + len(others)
    same: list[dict[str, Any]] = [
        {"name": "other"},
        {"description": "ink"},
        {"test_split": "valid"},
        {"labelled": True},
        {"count": 5},
    ]
    assert {file(**change) for change in same} == {file()}


def test_a_missing_classifier_names_its_verb(tmp_path: Path) -> None:
    """Measuring without classifiers says what makes them."""
    with pytest.raises(RunError, match=r"python -m training\.train_classifiers EXPERIMENT\.toml"):
        load_classifier(tmp_path / "none.pt")


def test_a_damaged_classifier_names_its_verb(tmp_path: Path) -> None:
    """What was cut short, and a file of something else, are made anew by what makes them."""
    file = tmp_path / "kept.pt"
    save_classifier(Classifier("digit_small", channels=1, classes=2), file)
    whole = file.read_bytes()
    torch.save({"steps_done": 5}, file)
    for content in (whole[:500], b"", b"no classifier", file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"kept\.pt does not hold a classifier: \S.*; .+ makes it anew"):
            load_classifier(file)
