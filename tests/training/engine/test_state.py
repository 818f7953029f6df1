"""Updates of a weight worked out by hand, and means of losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from training.config.networks import NetworkConfig
from training.engine.state import Learner, RunningMeans, descend
from training.networks.weights import OPTIMISERS

# A weight that begins at 1, after gradients of 1 and -2, at a rate of 0.1 with betas of 0.5 and 0.75.
SECOND = 0.75 * 0.25 + 0.25 * 4  # the mean of squared gradients after both, of which the first is 0.25
WEIGHTS = {
    "adam": (0.9, 0.9 + 0.1 * 1 / (SECOND / (1 - 0.75**2)) ** 0.5),  # the mean of gradients: -0.75 / 0.75
    "sgd": (0.9, 0.9 + 0.1 * 1.5),  # 0.5 * 1 - 2
    "rmsprop": (0.8, 0.8 + 0.1 * 2 / SECOND**0.5),
}


def learner_of(fabric: Fabric, **options: Any) -> Learner:
    """Make the learner of a single weight, which begins at 1."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    return Learner(network, NetworkConfig(**options), fabric)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_updates_as_its_options_say(fabric: Fabric, optimiser: str, decay: float) -> None:
    """Rate, betas and weight decay count: gradients are chosen so that with the decay they are 1 and -2."""
    learner = learner_of(fabric, optimiser=optimiser, learning_rate=0.1, betas=(0.5, 0.75), weight_decay=decay)
    (weight,) = learner.network.parameters()
    weights = []
    for gradient in (1.0, -2.0):
        descend((gradient - decay * weight.item()) * weight.sum(), [learner], fabric)
        weights.append(weight.item())
    assert weights == pytest.approx(WEIGHTS[optimiser], rel=1e-5)


def test_means_are_those_since_the_last_reset() -> None:
    """Each name counts its own values, and what is not finite is named."""
    means = RunningMeans()
    means.add(loss=torch.tensor(1.0), penalty=torch.tensor(4.0))
    means.add(loss=torch.tensor(2.0))
    assert means.means() == {"loss": 1.5, "penalty": 4.0}
    assert means.not_finite() == []
    means.add(loss=torch.tensor(float("nan")), penalty=torch.tensor(float("inf")))
    assert means.not_finite() == ["loss", "penalty"]
    means.reset()
    assert means.means() == {}
