"""Small DCGANs (Radford et al. 2016), and two networks of their size without deconvolutions.

Of CoGAN-tensorflow, DCGAN-Tensorflow, PyTorch-GAN and Soft-CoGAN's `rotate`.
"""

from __future__ import annotations

from functools import partial

from training.zoo.rows import Layer, Table

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
    "upsample": Table(
        "PyTorch-GAN's at 32x32: pixels repeated and convolved, its normalisation damped by an eps of 0.8",
        (32, 32),
        (
            Layer("linear", 128, 8, norm="batch"),
            _damped(128, enlarge=2),  # 16x16
            _damped(64, enlarge=2),  # 32x32
            Layer("conv", "image", 3, 1, 1, activation="tanh"),
        ),
    ),
    "connected": Table(
        "Soft-CoGAN's rotate at 32x32: fully connected layers, which know nothing of places",
        (32, 32),
        (*(_connected,) * 4, Layer("linear", "image", 32, activation="sigmoid")),
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
    "upsample": Table(
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
    "connected": Table(
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
