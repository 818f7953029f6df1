"""Small DCGANs (Radford et al. 2016): CoGAN-tensorflow's coupled one and DCGAN-Tensorflow's two."""

from __future__ import annotations

from functools import partial

from training.architectures.layers import Layer, Table

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

GENERATORS = {
    "dcgan_digit": Table(
        "CoGAN-tensorflow's at 28x28 without the layer that nothing reads there",
        (28, 28),
        (
            _slope("linear", 128, 7, norm="batch"),
            _doubling(128),  # 14x14
            Layer("deconv", "image", 5, 2, "same", activation="sigmoid"),  # 28x28
        ),
    ),
    "dcgan_28": Table(
        "DCGAN-Tensorflow's for MNIST, with the normalisation that is computed there and not used",
        (28, 28),
        (
            _widening(100, 2),  # 2x2
            _widening(25, 3, 2),  # 5x5
            _widening(6, 4, 2),  # 12x12
            Layer("deconv", "image", 6, 2, activation="tanh"),  # 28x28
        ),
    ),
    "dcgan_32": Table(
        "DCGAN-Tensorflow's for SVHN and CIFAR-10, with the normalisation as in dcgan_28",
        (32, 32),
        (
            _widening(384, 2),  # 2x2
            _widening(128, 4, 2),  # 6x6
            _widening(64, 4, 2),  # 14x14
            Layer("deconv", "image", 6, 2, activation="tanh"),  # 32x32
        ),
    ),
}

DISCRIMINATORS = {
    "dcgan_digit": Table(
        "CoGAN-tensorflow's at 28x28: one map, then 64; there the last two rows are shared",
        (28, 28),
        (
            _slope("conv", 1, 5, 2, "same"),  # 14x14
            _slope("conv", 64, 5, 2, "same", norm="batch"),  # 7x7
            _slope("linear", 1024, norm="batch"),
            Layer("linear", "logit"),
        ),
    ),
    "dcgan_28": Table(
        "DCGAN-Tensorflow's for MNIST: convolution, LeakyReLU, normalisation, half of it left out",
        (28, 28),
        (_noisy(32), _noisy(64), _noisy(128), Layer("linear", "logit")),  # 14x14, 7x7, 4x4
    ),
    "dcgan_32": Table(
        "DCGAN-Tensorflow's for SVHN and CIFAR-10: dcgan_28 with twice the channels",
        (32, 32),
        (_noisy(64), _noisy(128), _noisy(256), Layer("linear", "logit")),  # 16x16, 8x8, 4x4
    ),
}
