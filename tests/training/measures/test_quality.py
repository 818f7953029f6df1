"""What pairs are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from training.config.experiment import Experiment
from training.images.sets import load_split
from training.measures.quality import measure_pixels
from training.pixels.transforms import transform

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
