"""How weights are drawn, and which rows are normalised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.config.experiment import Experiment
from training.networks.initialisers import INITIALISERS
from training.steps.construction import build_discriminator, build_encoder, build_generator

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize("name", INITIALISERS)
def test_every_initialisation_draws_all_weights(make_experiment: MakeExperiment, name: str) -> None:
    """Weights are spread around zero, and biases are zero where nothing else is said."""
    discriminator = build_discriminator(make_experiment(discriminator={"initialisation": name}))
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std() > 0.005
            assert module.weight.abs().max() < 3
            assert module.bias is not None
            assert not module.bias.any()


def values(network: nn.Module, *kinds: type[nn.Module], name: str) -> set[float]:
    """Return every value that parameters of a name have in modules of some kinds."""
    parameters = [getattr(module, name) for module in network.modules() if isinstance(module, kinds)]
    return {value.item() for values in parameters if values is not None for value in values.flatten()}


@pytest.mark.parametrize("build", [build_generator, build_discriminator, build_encoder])
def test_biases_begin_where_they_are_told_to(
    make_experiment: MakeExperiment, build: Callable[[Experiment], nn.Module]
) -> None:
    """Those of every linear operation do, and those of normalisations stay zero."""
    told = {"table": "digit", "width": 1 / 32, "initial_bias": 0.125}
    network = build(make_experiment(generator=told, discriminator=told, encoder=told))
    assert values(network, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, name="bias") == {0.125}
    assert values(network, nn.BatchNorm2d, name="bias") <= {0.0}
    assert values(network, nn.BatchNorm2d, name="weight") <= {1.0}


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
@pytest.mark.parametrize(("told", "slope"), [(None, 0.25), (0.0, 0.0), (0.5, 0.5)])
def test_prelus_begin_where_they_are_told_to(
    make_experiment: MakeExperiment,
    build: Callable[[Experiment], nn.Module],
    told: float | None,
    slope: float,
) -> None:
    """Every slope is the one that is said, zero among them, or else the table's."""
    changes = {"table": "digit", "initial_slope": told}
    network = build(make_experiment(generator=changes, discriminator=changes))
    assert values(network, nn.PReLU, name="weight") == {slope}


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
