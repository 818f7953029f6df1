"""Initialisation of weights, which layers are normalised, and the exponential moving average (EMA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.config.experiment import Experiment
from training.engine.state import build_discriminator, build_encoder, build_generator
from training.networks.weights import INITIALISERS, initialise, update_average

MakeExperiment = Callable[..., Experiment]
FAN_IN, FAN_OUT = 25 * 4 * 4, 100 * 4 * 4
FLAT, BELL = (1.725, math.sqrt(3) + 1e-4), (3.5, 5.5)  # bounds of the farthest of many, in deviations
DISTRIBUTIONS = {
    "normal": (0.02, BELL),
    "xavier": (math.sqrt(2) * math.sqrt(2 / (FAN_IN + FAN_OUT)), FLAT),
    "he": (math.sqrt(2 / (1 + 0.2**2) / FAN_IN), BELL),
    "uniform": (math.sqrt(1 / 3 / FAN_IN), FLAT),
}
OPERATIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def values(network: nn.Module, *kinds: type[nn.Module], name: str) -> set[float]:
    """Return every value that parameters of a name have in modules of some kinds."""
    parameters = [getattr(module, name) for module in network.modules() if isinstance(module, kinds)]
    return {value.item() for values in parameters if values is not None for value in values.flatten()}


@pytest.mark.parametrize("name", INITIALISERS)
def test_every_initialisation_is_the_distribution_of_its_name(name: str) -> None:
    """Weights lie around zero as far apart as the definition says, and in its shape; biases are zero."""
    deviation, (least, most) = DISTRIBUTIONS[name]
    torch.manual_seed(0)
    conv = nn.Conv2d(25, 100, 4)  # 40,000 weights
    initialise(conv, name)
    assert conv.weight.mean().item() == pytest.approx(0.0, abs=deviation / 50)
    assert conv.weight.std().item() == pytest.approx(deviation, rel=0.01)
    assert least < conv.weight.abs().max().item() / deviation < most
    assert conv.bias is not None
    assert not conv.bias.any()


@pytest.mark.parametrize("build", [build_generator, build_discriminator, build_encoder])
def test_every_weight_has_the_networks_initialisation(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch, build: Callable[[Experiment], nn.Module]
) -> None:
    """The weights of every linear operation are initialised by the given name."""
    monkeypatch.setitem(INITIALISERS, "he", nn.init.ones_)
    told = {"table": "digit", "width": 1 / 32, "initialisation": "he"}
    network = build(make_experiment(generator=told, discriminator=told, encoder=told))
    assert values(network, *OPERATIONS, name="weight") == {1.0}


@pytest.mark.parametrize("build", [build_generator, build_discriminator, build_encoder])
def test_biases_start_at_initial_bias(
    make_experiment: MakeExperiment, build: Callable[[Experiment], nn.Module]
) -> None:
    """Those of every linear operation do, and those of normalisations stay zero."""
    told = {"table": "digit", "width": 1 / 32, "initial_bias": 0.125}
    network = build(make_experiment(generator=told, discriminator=told, encoder=told))
    assert values(network, *OPERATIONS, name="bias") == {0.125}
    assert values(network, nn.BatchNorm2d, name="bias") <= {0.0}
    assert values(network, nn.BatchNorm2d, name="weight") <= {1.0}


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
@pytest.mark.parametrize(("told", "slope"), [(None, 0.25), (0.0, 0.0), (0.5, 0.5)])
def test_prelus_start_at_initial_slope(
    make_experiment: MakeExperiment, build: Callable[[Experiment], nn.Module], told: float | None, slope: float
) -> None:
    """Every slope is the one that is said, zero among them, or else the table's."""
    changes = {"table": "digit", "initial_slope": told}
    network = build(make_experiment(generator=changes, discriminator=changes))
    assert values(network, nn.PReLU, name="weight") == {slope}


@pytest.mark.parametrize("name", INITIALISERS)
def test_a_spectral_row_has_singular_value_one(make_experiment: MakeExperiment, name: str) -> None:
    """With any initialisation, after some forwards the largest singular value of every layer is 1."""
    tiny = {"table": "digit_spectral", "initialisation": name, "width": 1 / 16}
    discriminator = build_discriminator(make_experiment(["digit"], discriminator=tiny))
    images = torch.randn(2, 1, 28, 28)
    for _ in range(200):
        discriminator({"digit": images})
    operations = [m for m in discriminator.modules() if isinstance(m, OPERATIONS)]
    assert len(operations) == 4
    for operation in operations:
        largest = torch.linalg.matrix_norm(operation.weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.tensor(1.0), rtol=0.03, atol=0.0)


def test_the_other_tables_are_not_normalised(make_experiment: MakeExperiment) -> None:
    """A table without spectral rows has plain weights, whose names in a checkpoint are as they were."""
    names = build_discriminator(make_experiment(["digit"])).state_dict()
    assert "trunk.0.weight" in names
    assert not any("parametrizations" in name for name in names)


def test_the_average_follows_weights_and_buffers() -> None:
    """All floating values move by (1 - decay) of the way; the count of batches is copied."""
    network, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network(torch.randn(8, 2) * 3 + 1)
    with torch.no_grad():
        network.weight.fill_(5.0)
    before = copy.deepcopy(average.state_dict())
    update_average(average, network, decay=0.75)
    for name in ("weight", "bias", "running_mean", "running_var"):
        expected = 0.75 * before[name] + 0.25 * network.state_dict()[name]
        torch.testing.assert_close(average.state_dict()[name], expected)
    assert int(average.state_dict()["num_batches_tracked"]) == 1


def test_directions_are_not_averaged() -> None:
    """A spectrally normalised average bounds its slope as the network does: by its own singular vectors."""
    torch.manual_seed(0)
    network = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5))
    average = copy.deepcopy(network).eval()
    for _ in range(50):
        with torch.no_grad():
            network.get_parameter("parametrizations.weight.original").normal_()
        network(torch.zeros(1, 6))
        update_average(average, network, decay=0.9)
    for name, buffer in average.named_buffers():
        assert torch.equal(buffer, network.get_buffer(name))
        assert buffer.norm() == pytest.approx(1.0)
