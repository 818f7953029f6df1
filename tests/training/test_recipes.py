"""The committed recipes train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

import training
from training.config.experiment import Experiment, load_experiment
from training.engine.trainer import Trainer
from training.pretrained.features import LossNetworks
from training.sweep import move

FILES = sorted((Path(training.__file__).parent / "recipes").glob("*.toml"))
NARROW = {f"{network}.width": 1 / 64 for network in ("generator", "discriminator", "encoder")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_experiment_trains(
    file: Path, fabric: Fabric, make_loss_networks: Callable[[Experiment], LossNetworks]
) -> None:
    """Two steps with narrow networks, on images at random: all requested is logged and finite."""
    experiment = move(load_experiment(file), NARROW | {"batch_size": 4, "classifier.batch_size": None})
    images = {
        domain.name: torch.randint(256, (9, domain.channels, *experiment.size), dtype=torch.uint8)
        for domain in experiment.domains
    }
    labelled = [domain.name for domain in experiment.domains if domain.labelled]
    labels = {name: torch.randint(experiment.classes, (9,)) for name in labelled}
    trainer = Trainer(experiment, images, fabric, make_loss_networks(experiment), labels)
    for _ in range(2):
        trainer.step()
    asked = [coupling.name for coupling in experiment.couplings]
    asked += [penalty.name for penalty in experiment.discriminator.all_penalties]
    asked += [lesson.name for lesson in experiment.lessons if not lesson.begins]
    assert trainer.state.means.means().keys() >= {"generator_loss", *asked}
    assert trainer.state.not_finite() == []
