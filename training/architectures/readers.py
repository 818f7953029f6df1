"""Networks that read an image and are not adversaries: encoders into latents, and classifiers."""

from __future__ import annotations

from training.architectures.layers import Layer, Table

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
