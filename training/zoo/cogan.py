"""Coupled networks for digits: those of the paper, those that learn faster, and those of 32x32."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from training.zoo.rows import Activation, Layer, Table


def _digit(
    hidden: Activation, slope: float, last: Activation, features: int = 128, affine: bool = True
) -> tuple[Layer, ...]:
    deconv = partial(Layer, "deconv", norm="batch", affine=affine, activation=hidden, slope=slope)
    return (
        deconv(1024, 4),  # 4x4
        deconv(512, 3, 2, 1),  # 7x7
        deconv(256, 3, 2, 1),  # 13x13
        deconv(features, 3, 2, 1),  # 25x25
        Layer("deconv", "image", 6, 1, 1, activation=last),  # 28x28
    )


_started = partial(Layer, norm="batch", eps=1e-3, activation="prelu", slope=0.25)  # eps of Keras

_DOUBLED = (
    *(_started("deconv", out, 3, 2, "same") for out in (512, 256, 128)),  # 8x8 to 32x32
    Layer("deconv", "image", 6, padding="same", activation="tanh"),
)

GENERATORS = {
    "digit": Table(
        "the digit generator of Liu & Tuzel 2016 (supplement, table 1): five deconvolutions to 28x28",
        (28, 28),
        _digit("prelu", 0.25, "sigmoid", affine=False),
    ),
    "digit_leaky": Table(
        "the same with LeakyReLU, whose backward costs a fifth of PReLU's, and tanh (Radford et al. 2016)",
        (28, 28),
        _digit("leaky_relu", 0.2, "tanh"),
    ),
    "digit_wide": Table(
        "digit_leaky with twice the features before the heads, for domains that need more than strokes",
        (28, 28),
        _digit("leaky_relu", 0.2, "tanh", features=256),
    ),
    "digit_doubling": Table(
        "a dense layer to 7x7 and deconvolutions that double: few channels, even windows, quick on a CPU",
        (28, 28),
        (
            Layer("linear", 128, 7, norm="batch", activation="leaky_relu"),
            Layer("deconv", 64, 4, 2, 1, norm="batch", activation="leaky_relu"),  # 14x14
            Layer("deconv", 32, 4, 2, 1, norm="batch", activation="leaky_relu"),  # 28x28
            Layer("conv", "image", 5, 1, 2, activation="tanh"),
        ),
    ),
    "digit_32": Table(
        "Soft-CoGAN's digit at 32x32: each deconvolution doubles the sides",
        (32, 32),
        (
            _started("linear", 1024, 4),
            *(_started("deconv", out, 3, 2, "same", slope=0.0) for out in (512, 256, 128)),  # 8x8 to 32x32
            Layer("deconv", "image", 6, padding="same", activation="tanh"),
        ),
    ),
    "digit_32_unshared": Table(
        "Soft-CoGAN's digit_noshare at 32x32: as digit_32, but every PReLU begins with 0.25",
        (32, 32),
        (_started("linear", 1024, 4), *_DOUBLED),
    ),
    "digit_32_first": Table(
        "the same with its option use_firstlayer: one deconvolution more, at 4x4",
        (32, 32),
        (_started("linear", 1024, 4), _started("deconv", 1024, 4, padding="same"), *_DOUBLED),
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
            Layer("conv", 500, 4, activation="prelu", slope=0.25),  # 1x1
            Layer("conv", "logit"),
        ),
    ),
    "digit_32": Table(
        "Soft-CoGAN's digit at 32x32: as the paper's, with padding and dropout",
        (32, 32),
        (
            Layer("conv", 20, 5, 1, 2, pool=2),  # 16x16
            Layer("conv", 50, 5, 1, 2, pool=2),  # 8x8
            Layer("linear", 500, activation="prelu", slope=0.25, dropout=0.5),
            Layer("linear", "logit"),
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
