"""What a table of layers is made of: its rows and their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operation = Literal["conv", "deconv", "linear"]
Norm = Literal["none", "batch"]
Activation = Literal["none", "prelu", "leaky_relu", "relu", "sigmoid", "tanh"]
Width = int | Literal["image", "logit", "latent", "classes"]


@dataclass(frozen=True)
class Layer:
    """One row: an operation, then pooling, normalisation, activation and dropout, in this order."""

    operation: Operation
    out: Width
    """Channels at width 1, or what fixes them: the domain's image, one logit, the latent, the classes."""
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1
    norm: Norm = "none"
    activation: Activation = "none"
    dropout: float = 0.0
    spectral: bool = False
    """Whether the weight is divided by its largest singular value (Miyato et al. 2018)."""


@dataclass(frozen=True)
class Table:
    """A network's layers, the image size they are made for, and a sentence about them."""

    about: str
    size: tuple[int, int]  # H, W
    layers: tuple[Layer, ...]
