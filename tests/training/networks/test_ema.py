"""Exponential moving average (EMA) of a network's weights and buffers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training.networks.ema import update_average


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
