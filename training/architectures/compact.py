"""Coupled networks that do without deconvolutions: enlarged pixels, and fully connected layers."""

from __future__ import annotations

from functools import partial

from training.architectures.layers import Layer, Table

_damped = partial(Layer, "conv", kernel=3, padding=1, norm="batch", eps=0.8, activation="leaky_relu")
_halving = partial(Layer, "conv", kernel=3, stride=2, padding=1, activation="leaky_relu", channel_dropout=0.25)
_connected = Layer("linear", 1024, norm="batch", eps=1e-3, norm_last=True, activation="prelu", slope=0.25)

GENERATORS = {
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
