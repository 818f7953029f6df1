"""The processes that train one run together, each on its share of every batch."""

from __future__ import annotations

from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.compute.batch_norm import share_statistics
from training.errors import ConfigError

T = TypeVar("T")


class Processes:
    """What the processes of a run do together; one alone does nothing.

    Each averages over its own share, so the means of all shares are those of the whole batch.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.count = fabric.world_size
        self.rank = fabric.global_rank
        self.device = fabric.device
        self.leads = fabric.is_global_zero
        """Whether this is the one that writes."""
        self.precision = str(fabric._precision.precision)  # which it has under no public name

    def check(self, batch_size: int, field: str = "batch_size") -> None:
        """Raise ConfigError, naming the field, where a batch cannot be shared out evenly."""
        if batch_size % self.count:
            raise ConfigError(f"{field} = {batch_size}: must be a multiple of {self.count}, the processes")

    def join(self, network: nn.Module) -> None:
        """Have a network take its batch statistics over all shares."""
        if self.count > 1:
            share_statistics(network)

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a whole batch: [B, ...] -> [B / count, ...]."""
        return batch.chunk(self.count)[self.rank]

    def share_each(self, batches: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's rows of the whole batch of every domain."""
        return {name: self.share(batch) for name, batch in batches.items()}

    def told(self, value: T) -> T:
        """Return what the one that leads has."""
        told: T = self._fabric.broadcast(value)
        return told

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of what each process has."""
        mean = self._fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def average_gradients(self, network: nn.Module) -> None:
        """Make every gradient the mean of all processes', in one exchange."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))
