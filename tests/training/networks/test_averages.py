"""Averages over time of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from training.networks.averages import update_average


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
