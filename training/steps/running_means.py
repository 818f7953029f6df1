"""Means of losses between two lines of metrics, and the costs that are added to a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

Costs = Mapping[str, tuple[float, Tensor]]  # by name: its weight, and the cost itself


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

    def weigh(self, loss: Tensor, costs: Costs) -> Tensor:
        """Return the loss with each cost added by its weight, and count the costs themselves."""
        for name, (weight, cost) in costs.items():
            self.add(**{name: cost})
            loss = loss + weight * cost
        return loss

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
