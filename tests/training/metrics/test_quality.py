"""Quality of pairs: what is measured, and against which floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.data.picture_sets import pictures, write_split
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import load_split
from training.losses.pixels import transform
from training.metrics.quality import measure_counterparts, measure_pixels

MakeExperiment = Callable[..., Experiment]
SIZE = (28, 28)


def test_perfect_pairs_are_found_perfect(make_experiment: MakeExperiment) -> None:
    """Real images and their own transforms agree wholly; the floor of unrelated ones lies below."""
    domains = make_experiment(("digit", "edge", "negative")).domains
    real = {domain.name: load_split(domain, "test", SIZE) for domain in domains}
    pairs = {domain.name: transform(real["digit"].images, domain.transform) for domain in domains}
    measured = measure_pixels(domains, pairs, real)
    assert measured.keys() == {"edge", "negative"}
    for agreement in measured.values():
        assert agreement["binarised"] == agreement["within_25"] == 1.0
        assert 0.3 < agreement["floor"]["within_25"] < 0.95


def test_a_transform_is_measured_against_the_same_images_alone(make_experiment: MakeExperiment) -> None:
    """What is made of other images, or of these fitted otherwise, says nothing of the pixels of a pair."""
    digit, edge = make_experiment(("digit", "edge")).domains
    real = {name: load_split(digit, "test", SIZE) for name in ("digit", "edge")}
    pairs = {name: images.images for name, images in real.items()}
    for strange in (replace(edge, margin=2), replace(edge, image_column="photo"), replace(edge, channels=3)):
        assert measure_pixels((digit, strange), pairs, real) == {}
    for same in (edge, replace(edge, train_split="train[50%:]")):
        assert measure_pixels((digit, same), pairs, real).keys() == {"edge"}


def test_true_pairs_stand_beside_the_generated(tmp_path: Path) -> None:
    """A source of pairs measures how far images of a pair are apart; others have nothing to compare."""
    columns = {"image": pictures(0, 51, 102), "dark": pictures(0, 0, 51)}
    for split in ("train", "test"):
        write_split(tmp_path / "pairs", split, columns)
    domains = [{"name": name, "source": str(tmp_path / "pairs"), "image_column": name} for name in ("image", "dark")]
    experiment = parse_experiment({"name": "a", "data_license": "none", "domains": domains})
    generated = {
        name: torch.full((5, 1, *SIZE), level, dtype=torch.uint8) for name, level in (("image", 255), ("dark", 0))
    }
    measured = measure_counterparts(experiment, generated)["dark"]
    assert (measured["of"], measured["generated"]) == ("image", 1.0)
    assert measured["true_distance"] == pytest.approx(0.4 / 3)
    assert measured["true_floor"] > measured["true_distance"]
    alone = parse_experiment({"name": "a", "data_license": "none", "domains": domains[:1]})
    assert measure_counterparts(alone, generated) == {}
