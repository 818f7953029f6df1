"""Networks that read an image and are not adversaries: encoders into latents, classifiers, VGG19."""

from __future__ import annotations

from dataclasses import replace

from training.architectures.blocks import narrowing
from training.architectures.layers import Layer, Table

_ENCODER = (*narrowing(64, 128, 128, 256), Layer("linear", "latent"))
_ENCODED = {"digit": 28, "plain_32": 32, "plain_64": 64, "plain_128": 128, "plain_256": 256}  # pixels a side

ENCODERS = {
    name: Table(
        f"Soft-CoGAN's encoder at {side}x{side}: four convolutions, three of them halving, and dropout",
        (side, side),
        _ENCODER,
    )
    for name, side in _ENCODED.items()
}


_SOFT = (
    Layer("conv", 32, 3, activation="leaky_relu", slope=0.3),
    Layer("conv", 64, 3, pool=2, activation="leaky_relu", slope=0.3, dropout=0.25),
    Layer("linear", 128, activation="leaky_relu", slope=0.3, dropout=0.5),
    Layer("linear", "classes"),
)

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
    "photo_32": Table(
        "six convolutions with batch normalisation for small photographs; 256 features, as digit has 128",
        (32, 32),
        (
            Layer("conv", 32, 3, 1, 1, norm="batch", activation="relu"),
            Layer("conv", 32, 3, 1, 1, pool=2, norm="batch", activation="relu"),
            Layer("conv", 64, 3, 1, 1, norm="batch", activation="relu"),
            Layer("conv", 64, 3, 1, 1, pool=2, norm="batch", activation="relu"),
            Layer("conv", 128, 3, 1, 1, norm="batch", activation="relu"),
            Layer("conv", 128, 3, 1, 1, pool=2, norm="batch", activation="relu"),
            Layer("linear", 256, activation="relu", dropout=0.5),
            Layer("linear", "classes"),
        ),
    ),
    "digit_32": Table(
        "Soft-CoGAN's for digits of 32x32: two convolutions without padding",
        (32, 32),
        _SOFT,
    ),
    "attributes": Table(
        "the same at 128x128, Soft-CoGAN's for the attributes of CelebA; a logit each",
        (128, 128),
        _SOFT,
    ),
}


def _vgg(*blocks: tuple[int, int]) -> tuple[Layer, ...]:
    """Make rows of blocks, each so many convolutions to so many channels, with a pooling between them."""
    rows = []
    for number, (channels, length) in enumerate(blocks, start=1):
        plain = Layer("conv", channels, 3, 1, 1, activation="relu")
        last = plain if number == len(blocks) else replace(plain, pool=2)  # pooling and ReLU change places
        rows += [plain] * (length - 1) + [last]
    return tuple(rows)


FEATURES = {
    "vgg19": Table(
        "VGG19 up to its fourteenth convolution (Simonyan & Zisserman 2015, table 1, E): how images look",
        (224, 224),
        _vgg((64, 2), (128, 2), (256, 4), (512, 4), (512, 2)),
    ),
}
