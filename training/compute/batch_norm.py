"""Batch normalisation over a batch that several processes have a share of each.

Each layer takes its mean and variance over all shares, so that a network learns what it would learn in one
process from the whole batch. PyTorch's SyncBatchNorm does so on GPUs alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce, get_world_size
from torch.nn.modules.batchnorm import _BatchNorm


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
    """Have every batch normalisation of a network look at the shares of all processes."""
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
