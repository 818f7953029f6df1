"""How weights are drawn, and which rows are normalised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.config.experiment import Experiment
from training.networks.initialisers import INITIALISERS
from training.steps.construction import build_discriminator

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize("name", INITIALISERS)
def test_every_initialisation_draws_all_weights(make_experiment: MakeExperiment, name: str) -> None:
    """Weights are spread around zero, and biases are zero."""
    discriminator = build_discriminator(make_experiment(discriminator={"initialisation": name}))
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std() > 0.005
            assert module.weight.abs().max() < 3
            assert module.bias is not None
            assert not module.bias.any()


@pytest.mark.parametrize("name", INITIALISERS)
def test_a_spectral_row_has_singular_value_one(make_experiment: MakeExperiment, name: str) -> None:
    """However its weights were drawn, after some forwards the largest singular value of every layer is 1."""
    tiny = {"table": "digit_spectral", "initialisation": name, "width": 1 / 16}
    discriminator = build_discriminator(make_experiment(["digit"], discriminator=tiny))
    images = torch.randn(2, 1, 28, 28)
    for _ in range(30):
        discriminator({"digit": images})
    operations = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(operations) == 4
    for operation in operations:
        largest = torch.linalg.matrix_norm(operation.weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.tensor(1.0), rtol=0.03, atol=0.0)


def test_the_other_tables_are_not_normalised(make_experiment: MakeExperiment) -> None:
    """A table without spectral rows has plain weights, whose names in a checkpoint are as they were."""
    names = build_discriminator(make_experiment(["digit"])).state_dict()
    assert "trunk.0.weight" in names
    assert not any("parametrizations" in name for name in names)
