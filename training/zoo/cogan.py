"""Small networks of 28x28 and 32x32 pixels: the CoGAN paper's, faster ones, and those of its reimplementations.

DCGANs (Radford et al. 2016) of CoGAN-tensorflow and DCGAN-Tensorflow, and two networks of their size without
deconvolutions: PyTorch-GAN's `upsample` and Soft-CoGAN's `rotate`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from training.networks.layers import Activation, Architecture, Layer


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

_normed = partial(Layer, norm="batch", activation="leaky_relu")

_EVEN = (
    _normed("deconv", 64, 4, 2, 1),  # 14x14
    _normed("deconv", 32, 4, 2, 1),  # 28x28
    Layer("conv", "image", 5, 1, 2, activation="tanh"),
)

_STRIDED = (
    Layer("conv", 128, 5, 2, 2, activation="leaky_relu"),  # 14x14
    Layer("conv", 256, 5, 2, 2, activation="leaky_relu"),  # 7x7
    Layer("linear", 1024, activation="leaky_relu"),
    Layer("linear", "logit"),
)

_slope = partial(Layer, activation="prelu", slope=0.0)
_doubling = partial(_slope, "deconv", kernel=5, stride=2, padding="same", norm="batch")
_widening = partial(Layer, "deconv", norm="batch", activation="relu")
_noisy = partial(
    Layer,
    "conv",
    kernel=5,
    stride=2,
    padding="same",
    activation="leaky_relu",
    norm="batch",
    norm_last=True,
    dropout=0.5,
)
_damped = partial(Layer, "conv", kernel=3, padding=1, norm="batch", eps=0.8, activation="leaky_relu")
_halving = partial(Layer, "conv", kernel=3, stride=2, padding=1, activation="leaky_relu", channel_dropout=0.25)
_connected = Layer("linear", 1024, norm="batch", eps=1e-3, norm_last=True, activation="prelu", slope=0.25)

GENERATORS = {
    "digit": Architecture(
        "the digit generator of Liu & Tuzel 2016 (supplement, table 1): five deconvolutions to 28x28",
        (28, 28),
        _digit("prelu", 0.25, "sigmoid", affine=False),
    ),
    "digit_leaky": Architecture(
        "the same with LeakyReLU, whose backward costs a fifth of PReLU's, and tanh (Radford et al. 2016)",
        (28, 28),
        _digit("leaky_relu", 0.2, "tanh"),
    ),
    "digit_wide": Architecture(
        "digit_leaky with twice the features before the heads, for domains that need more than strokes",
        (28, 28),
        _digit("leaky_relu", 0.2, "tanh", features=256),
    ),
    "digit_doubling": Architecture(
        "a dense layer to 7x7 and deconvolutions that double: few channels, even windows, quick on a CPU",
        (28, 28),
        (_normed("linear", 128, 7), *_EVEN),
    ),
    "digit_mapped": Architecture(
        "three dense layers, then digit_doubling with half the channels at 7x7: fewer steps to the same distance",
        (28, 28),
        (*(_normed("linear", 256),) * 3, _normed("linear", 64, 7), *_EVEN),
    ),
    "digit_32": Architecture(
        "Soft-CoGAN's digit at 32x32: each deconvolution doubles the sides",
        (32, 32),
        (
            _started("linear", 1024, 4),
            *(_started("deconv", out, 3, 2, "same", slope=0.0) for out in (512, 256, 128)),  # 8x8 to 32x32
            Layer("deconv", "image", 6, padding="same", activation="tanh"),
        ),
    ),
    "digit_32_unshared": Architecture(
        "Soft-CoGAN's digit_noshare at 32x32: as digit_32, but every PReLU begins with 0.25",
        (32, 32),
        (_started("linear", 1024, 4), *_DOUBLED),
    ),
    "digit_32_first": Architecture(
        "the same with its option use_firstlayer: one deconvolution more, at 4x4",
        (32, 32),
        (_started("linear", 1024, 4), _started("deconv", 1024, 4, padding="same"), *_DOUBLED),
    ),
    "dcgan_digit": Architecture(
        "CoGAN-tensorflow's at 28x28 without the layer that nothing reads there",
        (28, 28),
        (
            _slope("linear", 128, 7, norm="batch"),
            _doubling(128),  # 14x14
            Layer("deconv", "image", 5, 2, "same", activation="sigmoid"),  # 28x28
        ),
    ),
    "dcgan_28": Architecture(
        "DCGAN-Tensorflow's for MNIST, with the normalisation that is computed there and not used",
        (28, 28),
        (
            _widening(100, 2),  # 2x2
            _widening(25, 3, 2),  # 5x5
            _widening(6, 4, 2),  # 12x12
            Layer("deconv", "image", 6, 2, activation="tanh"),  # 28x28
        ),
    ),
    "dcgan_32": Architecture(
        "DCGAN-Tensorflow's for SVHN and CIFAR-10, with the normalisation as in dcgan_28",
        (32, 32),
        (
            _widening(384, 2),  # 2x2
            _widening(128, 4, 2),  # 6x6
            _widening(64, 4, 2),  # 14x14
            Layer("deconv", "image", 6, 2, activation="tanh"),  # 32x32
        ),
    ),
    "upsample": Architecture(
        "PyTorch-GAN's at 32x32: pixels repeated and convolved, its normalisation damped by an eps of 0.8",
        (32, 32),
        (
            Layer("linear", 128, 8, norm="batch"),
            _damped(128, enlarge=2),  # 16x16
            _damped(64, enlarge=2),  # 32x32
            Layer("conv", "image", 3, 1, 1, activation="tanh"),
        ),
    ),
    "connected": Architecture(
        "Soft-CoGAN's rotate at 32x32: fully connected layers, which know nothing of places",
        (32, 32),
        (*(_connected,) * 4, Layer("linear", "image", 32, activation="sigmoid")),
    ),
}

DISCRIMINATORS = {
    "digit": Architecture(
        "the digit discriminator of Liu & Tuzel 2016: only max-pooling before its features",
        (28, 28),
        (
            Layer("conv", 20, 5, pool=2),  # 12x12
            Layer("conv", 50, 5, pool=2),  # 4x4
            Layer("conv", 500, 4, activation="prelu", slope=0.25),  # 1x1
            Layer("conv", "logit"),
        ),
    ),
    "digit_32": Architecture(
        "Soft-CoGAN's digit at 32x32: as the paper's, with padding and dropout",
        (32, 32),
        (
            Layer("conv", 20, 5, 1, 2, pool=2),  # 16x16
            Layer("conv", 50, 5, 1, 2, pool=2),  # 8x8
            Layer("linear", 500, activation="prelu", slope=0.25, dropout=0.5),
            Layer("linear", "logit"),
        ),
    ),
    "digit_strided": Architecture(
        "strided convolutions with LeakyReLU and no normalisation, so that a gradient penalty is exact",
        (28, 28),
        _STRIDED,
    ),
    "digit_spectral": Architecture(
        "digit_strided with every layer spectrally normalised (Miyato et al. 2018), which bounds its slope",
        (28, 28),
        tuple(replace(layer, spectral=True) for layer in _STRIDED),
    ),
    "dcgan_digit": Architecture(
        "CoGAN-tensorflow's at 28x28: one map, then 64; there the last two rows are shared",
        (28, 28),
        (
            _slope("conv", 1, 5, 2, "same"),  # 14x14
            _slope("conv", 64, 5, 2, "same", norm="batch"),  # 7x7
            _slope("linear", 1024, norm="batch"),
            Layer("linear", "logit"),
        ),
    ),
    "dcgan_28": Architecture(
        "DCGAN-Tensorflow's for MNIST: convolution, LeakyReLU, normalisation, half of it left out",
        (28, 28),
        (_noisy(32), _noisy(64), _noisy(128), Layer("linear", "logit")),  # 14x14, 7x7, 4x4
    ),
    "dcgan_32": Architecture(
        "DCGAN-Tensorflow's for SVHN and CIFAR-10: dcgan_28 with twice the channels",
        (32, 32),
        (_noisy(64), _noisy(128), _noisy(256), Layer("linear", "logit")),  # 16x16, 8x8, 4x4
    ),
    "upsample": Architecture(
        "PyTorch-GAN's at 32x32: halving convolutions that drop channels; there only the last row is own",
        (32, 32),
        (
            _halving(16),  # 16x16
            _halving(32, norm="batch", eps=0.8),  # 8x8
            _halving(64, norm="batch", eps=0.8),  # 4x4
            _halving(128, norm="batch", eps=0.8),  # 2x2
            Layer("linear", "logit"),
        ),
    ),
    "connected": Architecture(
        "Soft-CoGAN's rotate at 32x32: there only the last row, which mixes places, is shared",
        (32, 32),
        (
            Layer("conv", 20, 5, 1, 2, pool=2),  # 16x16
            Layer("conv", 50, 5, 1, 2, pool=2),  # 8x8
            Layer("conv", 500, activation="leaky_relu", slope=0.3),
            Layer("linear", "logit"),
        ),
    ),
}
