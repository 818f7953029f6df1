"""Rows of a table as modules of torch. Axes: B batch, C channels, H, W."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Self

from torch import nn

from training.architectures import Layer

Shape = tuple[int, int, int]  # C, H, W

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "prelu": nn.PReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class Layers(nn.Sequential):
    """Rows of a table as one flat sequence of modules."""

    lengths: tuple[tuple[Layer, int], ...] = ()

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Layer, list[nn.Module]]]) -> Self:
        """Join the modules that each row of a table became."""
        layers = cls(*(module for _, modules in rows for module in modules))
        layers.lengths = tuple((layer, len(modules)) for layer, modules in rows)
        return layers

    def rows(self) -> list[tuple[Layer, list[nn.Module]]]:
        """Return each row of the table with the modules that it became."""
        modules = iter(self)
        return [(layer, list(islice(modules, length))) for layer, length in self.lengths]


def build(
    layers: Sequence[Layer], shape: Shape, width: float, outputs: dict[str, int]
) -> tuple[Layers, Shape]:
    """Build rows of a table on an input of `shape`; return the module and the shape it puts out.

    `outputs` resolves the widths that are names; the others are multiplied by `width`.
    """
    rows: list[tuple[Layer, list[nn.Module]]] = []
    for layer in layers:
        out = outputs[layer.out] if isinstance(layer.out, str) else max(1, round(layer.out * width))
        operation, shape = _operation(layer, shape, out)
        rows.append((layer, [*operation, *_finish(layer, out)]))
    return Layers.of_rows(rows), shape


def _operation(layer: Layer, shape: Shape, out: int) -> tuple[list[nn.Module], Shape]:
    channels, *sides = shape
    bias = layer.norm == "none"  # a normalisation takes any bias away again
    k, s, p = layer.kernel, layer.stride, layer.padding
    if layer.operation == "linear":
        return [nn.Flatten(), nn.Linear(math.prod(shape), out, bias=bias)], (out, 1, 1)
    if layer.operation == "deconv":
        height, width = ((side - 1) * s - 2 * p + k for side in sides)
        return [nn.ConvTranspose2d(channels, out, k, s, p, bias=bias)], (out, height, width)
    height, width = (((side + 2 * p - k) // s + 1) // layer.pool for side in sides)
    pool = [nn.MaxPool2d(layer.pool)] if layer.pool > 1 else []
    return [nn.Conv2d(channels, out, k, s, p, bias=bias), *pool], (out, height, width)


def _finish(layer: Layer, out: int) -> list[nn.Module]:
    modules: list[nn.Module] = []
    if layer.norm == "batch":
        modules.append((nn.BatchNorm1d if layer.operation == "linear" else nn.BatchNorm2d)(out))
    if layer.activation != "none":
        modules.append(ACTIVATIONS[layer.activation]())
    if layer.dropout > 0.0:
        modules.append(nn.Dropout(layer.dropout))
    return modules
