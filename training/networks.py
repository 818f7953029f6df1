"""Coupled generators and discriminators over any number of domains, built from tables of layers.

Sharing is by identity: the trunk is one module, run once for all domains, so that coupled weights
cannot drift apart. Axes: B batch, Z latent, C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Self

import torch
from torch import Tensor, nn

from training.architectures import Layer, Table

Images = dict[str, Tensor]
Shape = tuple[int, int, int]  # C, H, W

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "prelu": nn.PReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of a last activation, and so of the images


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


class CoupledGenerator(nn.Module):
    """One trunk, and a head for each domain: latents [B, Z] -> {domain: images [B, C, H, W]}."""

    def __init__(
        self, table: Table, channels: dict[str, int], latent_dim: int, width: float, shared_layers: int
    ) -> None:
        super().__init__()
        shared, own = table.layers[:shared_layers], table.layers[shared_layers:]
        image = {"image": next(iter(channels.values()))}  # all domains' alike where every layer is shared
        self.trunk, shape = build(shared, (latent_dim, 1, 1), width, image)
        self.heads = nn.ModuleDict(
            {name: build(own, shape, width, {"image": count})[0] for name, count in channels.items()}
        )
        self.image_range = RANGES[table.layers[-1].activation]

    def forward(self, latent: Tensor) -> Images:
        """Draw the pairs of latents [B, Z]."""
        features = self.trunk(latent[:, :, None, None])
        return {name: head(features) for name, head in self.heads.items()}


class CoupledEncoder(nn.Module):
    """A stem for each domain, and one trunk: {domain: images [B, C, H, W]} -> {domain: values [B, V]}."""

    def __init__(
        self,
        table: Table,
        channels: dict[str, int],
        outputs: dict[str, int],
        width: float,
        shared_layers: int,
    ) -> None:
        super().__init__()
        border = len(table.layers) - shared_layers
        own, shared = table.layers[:border], table.layers[border:]
        stems, shapes = {}, []
        for name, count in channels.items():
            stems[name], shape = build(own, (count, *table.size), width, outputs)
            shapes.append(shape)
        self.stems = nn.ModuleDict(stems)
        self.trunk, _ = build(shared, shapes[0], width, outputs)

    def forward(self, images: Images) -> Images:
        """Read the images of each domain, [B, C, H, W]; batches may differ in length."""
        features = [self.stems[name](batch) for name, batch in images.items()]
        values = self.trunk(torch.cat(features)).flatten(1)
        return dict(zip(images, values.split([len(batch) for batch in images.values()]), strict=True))


class CoupledDiscriminator(CoupledEncoder):
    """An encoder of one value: {domain: images [B, C, H, W]} -> {domain: logits [B]}."""

    def __init__(self, table: Table, channels: dict[str, int], width: float, shared_layers: int) -> None:
        super().__init__(table, channels, {"logit": 1}, width, shared_layers)

    def forward(self, images: Images) -> Images:
        """Judge the images of each domain, [B, C, H, W]; batches may differ in length."""
        return {name: values.flatten() for name, values in super().forward(images).items()}


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
