"""Averages over time: of a network's weights, and of the losses between two lines of metrics."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move every floating weight and buffer of `average` by (1 - decay) towards the network's.

    Buffers count too: an averaged generator with another's batch statistics draws grey noise.
    """
    mine, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], 1.0 - decay)
    for name in mine.keys() - set(floating):
        mine[name].copy_(theirs[name])


class Average(Generic[Network]):
    """A copy of a network that follows it at a distance, without gradients."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._followed, self._decay = network, decay

    def update(self, steps_done: int) -> None:
        """Follow what the network has become; a young average forgets its random start."""
        warm = (1 + steps_done) / (10 + steps_done)
        update_average(self.network, self._followed, min(self._decay, warm))


def is_finite(network: nn.Module) -> bool:
    """Say whether all weights of a network are finite numbers."""
    return all(bool(weight.isfinite().all()) for weight in network.parameters())


class RunningMeans:
    """Means of named scalars, kept on their device so that adding one waits for nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Count one more value of each name."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def agree(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Replace every sum by its mean over the processes, each of which has counted its own share."""
        self._sums = {name: mean(total) for name, total in self._sums.items()}

    def means(self) -> dict[str, float]:
        """Return the means since the last reset, by name."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def not_finite(self) -> list[str]:
        """Name the scalars that have been infinite or not a number since the last reset."""
        return [name for name, mean in self.means().items() if not math.isfinite(mean)]

    def reset(self) -> None:
        """Begin anew."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, tuple[Tensor, int]]:
        """Return what `load_state_dict` takes."""
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}

    def load_state_dict(self, state: dict[str, tuple[Tensor, int]]) -> None:
        """Go on where another stopped."""
        self._sums = {name: total for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}
