"""Convolution to an image of few channels, as a matrix product: fast where a CPU's own convolution idles.

With one or three output channels most lanes of a vector convolution are empty. A matrix product over all places
computes every weight's share of every pixel, and shifted sums bring them together. Axes: O output channels,
k window, B batch, C, H, W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad


class ThinConv2d(nn.Conv2d):
    """A convolution of stride 1 and equal sides; in training on a CPU it is computed by matrix products.

    Its weights and its results are those of `nn.Conv2d`, up to rounding; its gradient has no gradient there.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        if not self.training or values.device.type != "cpu":
            return super().forward(values)
        batch, _, height, width = values.shape
        places = values.permute(0, 2, 3, 1).flatten(0, 2)  # [B*H*W, C]
        weights = self.weight.permute(0, 2, 3, 1).flatten(0, 2)  # [O*k*k, C]
        shares = (weights @ places.T).view(-1, *self.kernel_size, batch, height, width)
        images: Tensor = _ShiftedSum.apply(shares, self.padding[0])  # type: ignore[no-untyped-call]  # PyTorch's
        return images if self.bias is None else images + self.bias[:, None, None]


class _ShiftedSum(Function):
    """The sum over a window of shares [O, k, k, B, H, W], each shifted to its place: float32 [B, O, H, W]."""

    @staticmethod
    def forward(context: Any, shares: Tensor, padding: int) -> Tensor:
        outputs, side, _, batch, height, width = shares.shape
        context.shape, context.dtype, context.cut = shares.shape, shares.dtype, side - 1 - padding
        total = shares.new_zeros(outputs, batch, height + side - 1, width + side - 1, dtype=torch.float32)
        for row in range(side):
            for column in range(side):
                _window(total, context.shape, row, column).add_(shares[:, row, column])
        return pad(total, (-context.cut,) * 4).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Any:
        whole = pad(gradient.transpose(0, 1).to(context.dtype), (context.cut,) * 4)
        shares = whole.new_empty(context.shape)
        for row in range(context.shape[1]):
            for column in range(context.shape[2]):
                shares[:, row, column] = _window(whole, context.shape, row, column)
        return shares, None


def _window(total: Tensor, shape: torch.Size, row: int, column: int) -> Tensor:
    """Return where the share of one weight of a window lies: [O, B, H, W]."""
    _, side, _, _, height, width = shape
    top, left = side - 1 - row, side - 1 - column
    return total[..., top : top + height, left : left + width]
