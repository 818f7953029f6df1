"""Layers of an architecture, as data and as modules. Axes: B batch, O output channels, k window, C, H, W."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

Operation = Literal["conv", "deconv", "linear"]
Norm = Literal["none", "batch", "layer"]
Activation = Literal["none", "prelu", "leaky_relu", "relu", "sigmoid", "tanh"]
Width = int | Literal["image", "logit", "latent", "classes"]


@dataclass(frozen=True)
class Layer:
    """A layer: upsampling, an operation, pooling, normalisation, activation and dropout, in this order."""

    operation: Operation
    out: Width
    """Output channels at width 1, or what sets them: the domain's image, one logit, the latent, the classes."""
    kernel: int = 1
    """Kernel size; of a linear layer, the side of its output map."""
    stride: int = 1
    padding: int | Literal["same"] = 0
    """Pixels on every side; same, as in TensorFlow: the stride alone sets the output's size."""
    enlarge: int = 1
    """Factor of nearest-neighbour upsampling."""
    skip: bool = False
    """Whether the operation is a residual block: with a 3x3 convolution and a skip, before the normalisation."""
    pool: int = 1
    norm: Norm = "none"
    eps: float = 1e-5
    """Added to the variance by the normalisation."""
    affine: bool = True
    """Whether a batch normalisation learns a scale and a shift."""
    norm_last: bool = False
    """Whether the normalisation comes after the activation."""
    activation: Activation = "none"
    slope: float = 0.2
    """Negative slope: of leaky_relu, and the initial one of prelu."""
    dropout: float = 0.0
    """Dropout probability of a value."""
    channel_dropout: float = 0.0
    """Dropout probability of a whole channel (Tompson et al. 2015)."""
    spectral: bool = False
    """Whether the weight is divided by its largest singular value (Miyato et al. 2018)."""


@dataclass(frozen=True)
class Architecture:
    """Layers of a network, the image size that they are for, and a description."""

    about: str
    size: tuple[int, int]  # H, W
    layers: tuple[Layer, ...]

    def with_first(self, width: float) -> Architecture:
        """Return the architecture with so many times the channels of its first layer."""
        first, *others = self.layers
        assert isinstance(first.out, int), "an image, a logit and a latent come last"
        return replace(self, layers=(replace(first, out=round(first.out * width)), *others))


Shape = tuple[int, int, int]  # C, H, W
Built = tuple[list[nn.Module], Shape]


class Layers(nn.Sequential):
    """Layers of an architecture as one flat sequence of modules."""

    lengths: tuple[tuple[Layer, int], ...] = ()
    """Each layer, and the number of its modules."""

    def rows(self) -> list[tuple[Layer, list[nn.Module]]]:
        """Return each layer with its modules."""
        modules = iter(self)
        return [(layer, list(islice(modules, length))) for layer, length in self.lengths]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels at each place of [B, C, H, W], as Keras has it."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalise."""
        return super().forward(values.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """The sum of a main path and of a shortcut, scaled so that the variance stays."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, values: Tensor) -> Tensor:
        """Return [B, C', H', W'] of [B, C, H, W]."""
        total: Tensor = (self.main(values) + self.shortcut(values)) * math.sqrt(0.5)
        return total


class Flatten(nn.Flatten):
    """Flattening whose gradient is in channels_last, the memory layout that convolutions before it need."""

    def forward(self, values: Tensor) -> Tensor:
        """Flatten [B, C, H, W] to [B, C*H*W]."""
        if values.requires_grad and values.dim() == 4:
            values.register_hook(_channels_last)
        return super().forward(values)


class Unflatten(nn.Unflatten):
    """Unflattening to channels_last."""

    def forward(self, values: Tensor) -> Tensor:
        """Unflatten [B, C*H*W] to [B, C, H, W]."""
        return _channels_last(super().forward(values))


def _channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


def build(layers: Sequence[Layer], shape: Shape, width: float, outputs: dict[str, int]) -> tuple[Layers, Shape]:
    """Build layers on an input of `shape`; return the module and the shape of its output.

    `outputs` resolves the widths that are names; the others are multiplied by `width`.
    """
    rows: list[list[nn.Module]] = []
    for layer in layers:
        out = outputs[layer.out] if isinstance(layer.out, str) else max(1, round(layer.out * width))
        enlarged = [nn.Upsample(scale_factor=layer.enlarge)] if layer.enlarge > 1 else []
        channels, *sides = shape
        large = channels, sides[0] * layer.enlarge, sides[1] * layer.enlarge
        operation, shape = (_block if layer.skip else OPERATIONS[layer.operation])(layer, large, out)
        rows.append([*enlarged, *operation, *_finish(layer, out, flat=isinstance(operation[-1], nn.Linear))])
    built = Layers(*(module for modules in rows for module in modules))
    built.lengths = tuple((layer, len(modules)) for layer, modules in zip(layers, rows, strict=True))
    return built, shape


def _conv(layer: Layer, shape: Shape, out: int) -> Built:
    channels, *sides = shape
    k, s = layer.kernel, layer.stride
    around = [_around(layer, (math.ceil(side / s) - 1) * s + k - side) for side in sides]
    height, width = (((side + total - k) // s + 1) // layer.pool for side, total in zip(sides, around, strict=True))
    kind = ThinConv2d if _is_thin(layer, channels) else nn.Conv2d
    conv = kind(channels, out, k, s, _halves(around), bias=_has_bias(layer))
    pool = [nn.MaxPool2d(layer.pool)] if layer.pool > 1 else []
    return [*_at_the_ends(around, 1), conv, *pool], (out, height, width)


def _deconv(layer: Layer, shape: Shape, out: int) -> Built:
    channels, *sides = shape
    k, s = layer.kernel, layer.stride
    around = [_around(layer, k - s) for _ in sides]
    height, width = ((side - 1) * s + k - total for side, total in zip(sides, around, strict=True))
    deconv = nn.ConvTranspose2d(channels, out, k, s, _halves(around), bias=_has_bias(layer))
    return [deconv, *_at_the_ends(around, -1)], (out, height, width)


def _linear(layer: Layer, shape: Shape, out: int) -> Built:
    k = layer.kernel
    linear = nn.Linear(math.prod(shape), out * k * k, bias=_has_bias(layer))
    unfold = [Unflatten(1, (out, k, k))] if k > 1 else []
    return [Flatten(), linear, *unfold], (out, k, k)


def _block(layer: Layer, shape: Shape, out: int) -> Built:
    """Build a layer with a skip (He et al. 2016): beside its operation a 3x3 convolution, where the sides are smaller.

    A convolution halves the channels within, so that the block costs as much as the operation alone.
    """
    widens = layer.operation == "deconv"
    within = out if widens else max(1, out // 2)
    small = replace(layer, operation="conv", kernel=3, stride=1, padding=1, pool=1)
    one, other = (small, layer) if widens else (layer, small)
    first, inner = OPERATIONS[one.operation](one, shape, within)
    second, shape_out = OPERATIONS[other.operation](other, inner, out)
    finish = _finish(replace(layer, dropout=0.0, channel_dropout=0.0), within, flat=False)
    narrow = nn.Conv2d(shape[0], out, 1, bias=False)
    shortcut = [narrow, nn.Upsample(scale_factor=layer.stride)] if widens else [nn.AvgPool2d(layer.stride), narrow]
    return [Block(nn.Sequential(*first, *finish, *second), nn.Sequential(*shortcut))], shape_out


OPERATIONS: dict[str, Callable[[Layer, Shape, int], Built]] = {"conv": _conv, "deconv": _deconv, "linear": _linear}
NORMS: dict[str, Callable[[Layer, int, bool], list[nn.Module]]] = {
    "none": lambda _layer, _out, _flat: [],
    "batch": lambda layer, out, flat: [
        (nn.BatchNorm1d if flat else nn.BatchNorm2d)(out, layer.eps, affine=layer.affine)
    ],
    "layer": lambda layer, out, flat: [(nn.LayerNorm if flat else ChannelNorm)(out, layer.eps)],
}
ACTIVATIONS: dict[str, Callable[[Layer], list[nn.Module]]] = {
    "none": lambda _layer: [],
    "prelu": lambda layer: [nn.PReLU(init=layer.slope)],
    "leaky_relu": lambda layer: [nn.LeakyReLU(layer.slope)],
    "relu": lambda _layer: [nn.ReLU()],
    "sigmoid": lambda _layer: [nn.Sigmoid()],
    "tanh": lambda _layer: [nn.Tanh()],
}


def _finish(layer: Layer, out: int, flat: bool) -> list[nn.Module]:
    norm, activation = NORMS[layer.norm](layer, out, flat), ACTIVATIONS[layer.activation](layer)
    modules = [*activation, *norm] if layer.norm_last else [*norm, *activation]
    if layer.dropout > 0.0:
        modules.append(nn.Dropout(layer.dropout))
    if layer.channel_dropout > 0.0:
        modules.append(nn.Dropout2d(layer.channel_dropout))
    return modules


def _is_thin(layer: Layer, channels: int) -> bool:
    """Return whether a convolution is faster as a matrix product: to an image, of 32 channels or more."""
    narrow = isinstance(layer.padding, str) or layer.padding < layer.kernel
    return layer.out == "image" and layer.stride == 1 and channels >= 32 and narrow


def _has_bias(layer: Layer) -> bool:
    """Return whether a bias has an effect: no normalisation by channel subtracts it again."""
    return layer.norm != "batch" or layer.norm_last


def _around(layer: Layer, same: int) -> int:
    """Return the total padding of a side, before and after it."""
    return max(0, same) if layer.padding == "same" else 2 * layer.padding


def _halves(around: Sequence[int]) -> tuple[int, int]:
    height, width = (total // 2 for total in around)
    return height, width


def _at_the_ends(around: Sequence[int], sign: int) -> list[nn.Module]:
    """Pad by the extra pixel of an odd padding, at the bottom and right; a sign of -1 crops it."""
    height, width = (sign * (total % 2) for total in around)
    return [nn.ZeroPad2d((0, width, 0, height))] if height or width else []


class ThinConv2d(nn.Conv2d):
    """A convolution to few channels of stride 1 and a square window, by matrix products in training on a CPU.

    With one or three output channels most lanes of a vector convolution are empty. A matrix product over all places
    computes every weight's share of every pixel, and shifted sums add them up. Weights and results are those of
    `nn.Conv2d`, up to rounding; the gradient has no gradient.
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
    """Return the view [O, B, H, W] that the share of one weight of a window is added to."""
    _, side, _, _, height, width = shape
    top, left = side - 1 - row, side - 1 - column
    return total[..., top : top + height, left : left + width]
