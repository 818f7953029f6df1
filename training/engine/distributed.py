"""Distributed training: processes that each take a share of every batch."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce, destroy_process_group, get_world_size, is_initialized
from torch.nn.modules.batchnorm import _BatchNorm

from training.errors import ConfigError

T = TypeVar("T")


class Processes:
    """Collective operations of the processes of a run; no-ops for a single one.

    Each averages over its own share, so the means of all shares are those of the whole batch.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.count = fabric.world_size
        self.rank = fabric.global_rank
        self.device = fabric.device
        self.leads = fabric.is_global_zero
        """Whether this is the leading process, which writes."""
        self.precision = str(fabric._precision.precision)  # which it has under no public name

    def leave(self) -> None:
        """Leave the process group: its threads can crash a process that exits with them."""
        if self.count > 1 and is_initialized():
            destroy_process_group()

    def check(self, batch_size: int, field: str = "batch_size") -> None:
        """Raise ConfigError, naming the field, if a batch cannot be shared out evenly."""
        if batch_size % self.count:
            raise ConfigError(f"{field} = {batch_size}: must be a multiple of {self.count}, the processes")

    def join(self, network: nn.Module) -> None:
        """Make a network's batch statistics those of the whole batch."""
        if self.count > 1:
            share_statistics(network)

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a whole batch: [B, ...] -> [B / count, ...]."""
        return batch.chunk(self.count)[self.rank]

    def share_each(self, batches: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's rows of the whole batch of every domain."""
        return {name: self.share(batch) for name, batch in batches.items()}

    def broadcast(self, value: T) -> T:
        """Return the leading process's value."""
        received: T = self._fabric.broadcast(value)
        return received

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes."""
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


class CommonBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d` or `2d` over equal shares, by the same names in a state; axis 1 has the channels."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> CommonBatchNorm:
        """Make one with the weights and statistics of a normalisation of one process."""
        common = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        common.load_state_dict(norm.state_dict())
        return common.train(norm.training)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise [B, C, ...]; in evaluation by what has been gathered, as any other."""
        if not self.training:
            return super().forward(values)
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        exact = values.float()
        mean = _mean_of_shares(exact.mean(axes))
        centred = exact - mean.view(shape)
        variance = _mean_of_shares(centred.square().mean(axes))
        self._remember(mean.detach(), variance.detach(), values.numel() // len(mean) * get_world_size())
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(values.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None  # the tables make no other
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 -- its name in PyTorch
        if input.dim() < 2:
            raise ValueError(f"expected [B, C, ...], got {input.dim()} axes")


def share_statistics(network: nn.Module) -> None:
    """Replace every batch normalisation of a network by one over all processes."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, _BatchNorm):
                setattr(part, name, CommonBatchNorm.of(child))


def _mean_of_shares(share: Tensor) -> Tensor:
    return cast("Tensor", _Sum.apply(share)) / get_world_size()  # type: ignore[no-untyped-call]  # PyTorch's


class _Sum(Function):
    """The sum over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient)  # type: ignore[no-untyped-call]  # PyTorch's
