"""Layers that architectures are listed with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Operation = Literal["conv", "deconv", "linear"]
Norm = Literal["none", "batch", "layer"]
Activation = Literal["none", "prelu", "leaky_relu", "relu", "sigmoid", "tanh"]
Width = int | Literal["image", "logit", "latent", "classes"]


@dataclass(frozen=True)
class Layer:
    """One row: enlargement, an operation, pooling, normalisation, activation and dropout, in this order."""

    operation: Operation
    out: Width
    """Channels at width 1, or what fixes them: the domain's image, one logit, the latent, the classes."""
    kernel: int = 1
    """Side of the window; of a linear row, side of the map that it puts out."""
    stride: int = 1
    padding: int | Literal["same"] = 0
    """Pixels on every side; same, as TensorFlow has it, leaves a side's length to the stride alone."""
    enlarge: int = 1
    """How often every pixel is repeated, across and down."""
    skip: bool = False
    """Whether the operation is a block: with a 3x3 convolution and a skip, added before the normalisation."""
    pool: int = 1
    norm: Norm = "none"
    eps: float = 1e-5
    """What the normalisation adds to the variance."""
    affine: bool = True
    """Whether a batch normalisation learns a scale and a shift."""
    norm_last: bool = False
    """Whether the normalisation comes after the activation."""
    activation: Activation = "none"
    slope: float = 0.2
    """Slope below zero: of leaky_relu, and that prelu begins with."""
    dropout: float = 0.0
    """Share of values that an update leaves out."""
    channel_dropout: float = 0.0
    """Share of whole channels that an update leaves out (Tompson et al. 2015)."""
    spectral: bool = False
    """Whether the weight is divided by its largest singular value (Miyato et al. 2018)."""


@dataclass(frozen=True)
class Table:
    """An architecture: its layers, the image size they are for, and a description."""

    about: str
    size: tuple[int, int]  # H, W
    layers: tuple[Layer, ...]


def narrowing(first: int, *others: int) -> tuple[Layer, ...]:
    """Return Soft-CoGAN's plain encoder: 3x3 convolutions, all but the first of which halve the sides."""
    rows = [Layer("conv", first, 3, 1, 1, activation="leaky_relu")]
    rows += [Layer("conv", out, 3, 2, 1, activation="leaky_relu") for out in others]
    return (*rows[:-1], replace(rows[-1], dropout=0.4))
