"""The images of the committed recipes, from made-up copies of the hub's sets with its own layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import training
from tests.training.data.hub_layouts import ROWS, write_source
from training.config.data import DomainConfig
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import load_split, load_training_sets

FILES = sorted((Path(training.__file__).parent / "recipes").glob("*.toml"))
EXPERIMENTS = {repr((e.domains, e.size)): e for e in map(load_experiment, FILES)}  # one of those on the same


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_an_experiment_finds_its_images(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each domain has images of its channels and size in both splits, and no image is in two of them."""
    monkeypatch.setenv("COGAN_DATA", str(tmp_path))
    patches = [patch.source for domain in experiment.domains for patch in domain.patches]
    for source in {*patches, *(domain.source for domain in experiment.domains)}:
        write_source(tmp_path, source)
    sets = load_training_sets(experiment)
    for domain in experiment.domains:
        test = load_split(domain, "test", experiment.size)
        for images in (sets[domain.name].images, test.images):
            assert images.dtype == torch.uint8
            assert images.shape[1:] == (domain.channels, *experiment.size)
            assert 0 < len(images) <= rows(domain)
            assert len({one.numpy().tobytes() for one in images}) == len(images)
    wanted = {(domain.source, domain.image_column): rows(domain) for domain in experiment.domains}
    assert sum(len(images.images) for images in sets.values()) <= sum(wanted.values())


def rows(domain: DomainConfig) -> int:
    """Return how many rows the splits have together that a domain learns from."""
    return ROWS * len(domain.train_split.split("+"))
