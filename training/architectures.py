"""Networks as tables of layers: what each is made of, and nothing of how it is built.

A generator's first layers may be shared by its domains (the trunk) and its last are a domain's own (the
heads); a discriminator's first layers are a domain's own (the stems) and its last are shared (Liu & Tuzel
2016, figure 1). Where the border runs is a number of the experiment, not of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def _deconv(out: Width, kernel: int, stride: int, padding: int, activation: Activation) -> Layer:
    return Layer("deconv", out, kernel, stride, padding, norm="batch", activation=activation)


def _digit(hidden: Activation, last: Activation, features: int = 128) -> tuple[Layer, ...]:
    return (
        _deconv(1024, 4, 1, 0, hidden),  # 4x4
        _deconv(512, 3, 2, 1, hidden),  # 7x7
        _deconv(256, 3, 2, 1, hidden),  # 13x13
        _deconv(features, 3, 2, 1, hidden),  # 25x25
        Layer("deconv", "image", 6, 1, 1, activation=last),  # 28x28
    )


GENERATORS = {
    "digit": Table(
        "the digit generator of Liu & Tuzel 2016 (supplement, table 1): five deconvolutions to 28x28",
        (28, 28),
        _digit("prelu", "sigmoid"),
    ),
    "digit_leaky": Table(
        "the same with LeakyReLU, whose backward costs a fifth of PReLU's, and tanh (Radford et al. 2016)",
        (28, 28),
        _digit("leaky_relu", "tanh"),
    ),
    "digit_wide": Table(
        "digit_leaky with twice the features before the heads, for domains that need more than strokes",
        (28, 28),
        _digit("leaky_relu", "tanh", features=256),
    ),
}

_STRIDED = (
    Layer("conv", 128, 5, 2, 2, activation="leaky_relu"),  # 14x14
    Layer("conv", 256, 5, 2, 2, activation="leaky_relu"),  # 7x7
    Layer("linear", 1024, activation="leaky_relu"),
    Layer("linear", "logit"),
)

DISCRIMINATORS = {
    "digit": Table(
        "the digit discriminator of Liu & Tuzel 2016: only max-pooling before its features",
        (28, 28),
        (
            Layer("conv", 20, 5, pool=2),  # 12x12
            Layer("conv", 50, 5, pool=2),  # 4x4
            Layer("conv", 500, 4, activation="prelu"),  # 1x1
            Layer("conv", "logit"),
        ),
    ),
    "digit_strided": Table(
        "strided convolutions with LeakyReLU and no normalisation, so that a gradient penalty is exact",
        (28, 28),
        _STRIDED,
    ),
    "digit_spectral": Table(
        "digit_strided with every layer spectrally normalised (Miyato et al. 2018), which bounds its slope",
        (28, 28),
        tuple(replace(layer, spectral=True) for layer in _STRIDED),
    ),
}

ENCODERS = {
    "digit": Table(
        "Soft-CoGAN's encoder at 28x28: four convolutions, three of them strided, and dropout",
        (28, 28),
        (
            Layer("conv", 64, 3, 1, 1, activation="leaky_relu"),
            Layer("conv", 128, 3, 2, 1, activation="leaky_relu"),  # 14x14
            Layer("conv", 128, 3, 2, 1, activation="leaky_relu"),  # 7x7
            Layer("conv", 256, 3, 2, 1, activation="leaky_relu", dropout=0.4),  # 4x4
            Layer("linear", "latent"),
        ),
    ),
}

CLASSIFIERS = {
    "digit_small": Table(
        "two strided convolutions: quick enough to be asked in every step of a training",
        (28, 28),
        (
            Layer("conv", 16, 5, 2, 2, norm="batch", activation="relu"),  # 14x14
            Layer("conv", 32, 5, 2, 2, norm="batch", activation="relu"),  # 7x7
            Layer("linear", 64, activation="relu", dropout=0.5),
            Layer("linear", "classes"),
        ),
    ),
    "digit": Table(
        "four convolutions with batch normalisation; its 128 features measure Frechet distances",
        (28, 28),
        (
            Layer("conv", 32, 3, 1, 1, norm="batch", activation="relu"),
            Layer("conv", 32, 3, 1, 1, pool=2, norm="batch", activation="relu"),
            Layer("conv", 64, 3, 1, 1, norm="batch", activation="relu"),
            Layer("conv", 64, 3, 1, 1, pool=2, norm="batch", activation="relu"),
            Layer("linear", 128, activation="relu", dropout=0.5),
            Layer("linear", "classes"),
        ),
    ),
}
