"""Exponential moving average (EMA) of a network's weights and buffers."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
DIRECTIONS = ("._u", "._v")  # buffers of torch.nn.utils.parametrizations.spectral_norm


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move every floating weight and buffer of `average` by (1 - decay) towards the network's.

    Buffers count too: an averaged generator with another's batch statistics generates grey noise. But the mean
    of directions is no direction: the singular vectors of spectral normalisation are the network's own.
    """
    mine, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, value in mine.items() if value.is_floating_point() and not name.endswith(DIRECTIONS)]
    torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], 1.0 - decay)
    for name in mine.keys() - set(floating):
        mine[name].copy_(theirs[name])


class EMA(Generic[Network]):
    """The average of a network, as a network without gradients."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._followed, self._decay = network, decay

    def update(self, steps_done: int) -> None:
        """Update the average; a young one has a smaller decay, so that it forgets the random start."""
        warm = (1 + steps_done) / (10 + steps_done)
        update_average(self.network, self._followed, min(self._decay, warm))


def is_finite(network: nn.Module) -> bool:
    """Return whether all weights of a network are finite numbers."""
    return all(bool(weight.isfinite().all()) for weight in network.parameters())
