"""Networks of Soft-CoGAN (P9Project) and for photographs, 32x32 to 256x256; encoders, classifiers, VGG19."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from training.networks.layers import Architecture, Layer

KERAS = 1e-3  # eps of its batch and layer normalisation
_learned = partial(Layer, norm="batch", eps=KERAS, activation="prelu", slope=0.25)
_doubling = partial(_learned, "deconv", kernel=4, stride=2, padding=1)
_halving = partial(_learned, "conv", stride=2)
_leaky = partial(Layer, "deconv", norm="batch", eps=KERAS, activation="leaky_relu")
_image = partial(Layer, out="image", activation="tanh")


def _with_eps(eps: float, *layers: Layer) -> tuple[Layer, ...]:
    """Return layers whose batch normalisations have another eps."""
    return tuple(replace(layer, eps=eps) if layer.norm == "batch" else layer for layer in layers)


def _narrowing(first: int, *others: int) -> tuple[Layer, ...]:
    """Return Soft-CoGAN's plain encoder: 3x3 convolutions, all but the first of which halve the sides."""
    row = partial(Layer, "conv", kernel=3, padding=1, activation="leaky_relu")
    *halving, last = (row(out, stride=2) for out in others)
    return (row(first), *halving, replace(last, dropout=0.4))


_DRAWN = (*(_doubling(out) for out in (256, 128, 64, 32)), _image("deconv", kernel=3, padding=1))
_FACE_DRAWN = (_learned("linear", 1024, 4), _doubling(512), *_DRAWN)  # 4x4, 8x8, to 128x128

GENERATORS = {
    "cifar": Architecture(
        "Soft-CoGAN's for CIFAR-10 (its type 32): narrow, and wider at the end",
        (32, 32),
        (
            Layer("linear", 256, 4),
            _leaky(128, 4, 1, "same"),
            _leaky(128, 4, 2, 1),  # 8x8
            _leaky(128, 4, 2, 1),  # 16x16
            _leaky(256, 4, 2, 1),  # 32x32
            _image("conv", kernel=6, padding="same"),
        ),
    ),
    "photo_64": Architecture(
        "Soft-CoGAN's type 64, from 4x4 so that it generates 64x64 and not 256x256",
        (64, 64),
        (
            Layer("linear", 1024, 4),
            *(_leaky(out, 3, 2, "same") for out in (512, 256, 128, 128)),  # 8x8 to 64x64
            _image("deconv", kernel=6, padding="same"),
        ),
    ),
    "face": Architecture(
        "the official CelebA generator at 128x128, of one domain", (128, 128), _with_eps(1e-5, *_FACE_DRAWN)
    ),
    "photo_128": Architecture(
        "the same as Soft-CoGAN has it, coupled (its face) or of one domain (its type 128)", (128, 128), _FACE_DRAWN
    ),
    "photo_256": Architecture(
        "Soft-CoGAN's 256, coupled: photo_128 with twice the channels at first and one doubling more",
        (256, 256),
        (
            _learned("linear", 2048, 4),
            *(_doubling(out, activation="leaky_relu", slope=0.3) for out in (1024, 512)),  # 8x8, 16x16
            *_DRAWN,  # 32x32 to 256x256
        ),
    ),
    "photo_256_deep": Architecture(
        "Soft-CoGAN's type 256, of one domain: photo_256 with PReLU throughout",
        (256, 256),
        (_learned("linear", 2048, 4), _doubling(1024), _doubling(512), *_DRAWN),  # 4x4, 8x8, 16x16, to 256x256
    ),
}

_WIDE = (  # at 256x256
    *(_halving(out, 5, padding=2) for out in (32, 64)),  # 128x128, 64x64
    _halving(128, 5, padding=2, dropout=0.1),  # 32x32
    *(_halving(out, 5, padding=2, dropout=0.3) for out in (256, 512)),  # 16x16, 8x8
    _halving(1024, 5, padding=2, dropout=0.5),  # 4x4
)
_FACE = (
    _halving(32, 5, padding=2),  # 64x64
    _halving(64, 5, padding=2),  # 32x32
    _halving(128, 5, padding=2, dropout=0.1),  # 16x16
    _halving(256, 3, padding=1, dropout=0.3),  # 8x8
    _halving(512, 3, padding=1, dropout=0.3),  # 4x4
    _halving(1024, 3, padding=1, dropout=0.5),  # 2x2
    _learned("linear", 2048, dropout=0.5),
    Layer("linear", "logit"),
)

DISCRIMINATORS = {
    "cifar": Architecture(
        "Soft-CoGAN's for CIFAR-10: four convolutions and no normalisation",
        (32, 32),
        (*_narrowing(64, 128, 128, 256), Layer("linear", "logit")),
    ),
    "photo_64": Architecture(
        "Soft-CoGAN's type 64: cifar with two convolutions more",
        (64, 64),
        (*_narrowing(64, 128, 128, 128, 256, 512), Layer("linear", "logit")),
    ),
    "face": Architecture(
        "the official CelebA discriminator at 128x128, of one domain", (128, 128), _with_eps(1e-5, *_FACE)
    ),
    "photo_128": Architecture(
        "the same as Soft-CoGAN has it; coupled, it shares all but the first two rows", (128, 128), _FACE
    ),
    "face_layer_norm": Architecture(
        "photo_128 with layer normalisation, as Soft-CoGAN has it unshared: fit for a gradient penalty",
        (128, 128),
        tuple(replace(layer, norm="layer") if layer.norm == "batch" else layer for layer in _FACE),
    ),
    "photo_256": Architecture(
        "Soft-CoGAN's 256, coupled: six wide convolutions; all but the first two rows are shared",
        (256, 256),
        (*_WIDE, _learned("linear", 2048, dropout=0.5), Layer("linear", "logit")),
    ),
    "photo_256_deep": Architecture(
        "Soft-CoGAN's type 256, of one domain: photo_256 with a convolution more and a wider dense layer",
        (256, 256),
        (
            *_WIDE,
            _halving(2048, 5, padding=2, dropout=0.5),  # 2x2
            _learned("linear", 4096, dropout=0.5),
            Layer("linear", "logit"),
        ),
    ),
}


ENCODERS = {
    name: Architecture(
        f"Soft-CoGAN's encoder at {side}x{side}: four convolutions, three of them halving, and dropout",
        (side, side),
        (*_narrowing(64, 128, 128, 256), Layer("linear", "latent")),
    )
    for name, side in (("digit", 28), ("plain_32", 32), ("plain_64", 64), ("plain_128", 128), ("plain_256", 256))
}


_SOFT = (
    Layer("conv", 32, 3, activation="leaky_relu", slope=0.3),
    Layer("conv", 64, 3, pool=2, activation="leaky_relu", slope=0.3, dropout=0.25),
    Layer("linear", 128, activation="leaky_relu", slope=0.3, dropout=0.5),
    Layer("linear", "classes"),
)

_plain = partial(Layer, "conv", kernel=3, stride=1, padding=1, activation="relu")


def _pairs(features: int, *channels: int) -> tuple[Layer, ...]:
    """Return two convolutions to each number of channels, the second with pooling, and two dense layers."""
    rows = [_plain(out, pool=pool, norm="batch") for out in channels for pool in (1, 2)]
    return (*rows, Layer("linear", features, activation="relu", dropout=0.5), Layer("linear", "classes"))


CLASSIFIERS = {
    "digit_small": Architecture(
        "two strided convolutions: fast enough for a loss in every training step",
        (28, 28),
        (
            Layer("conv", 16, 5, 2, 2, norm="batch", activation="relu"),  # 14x14
            Layer("conv", 32, 5, 2, 2, norm="batch", activation="relu"),  # 7x7
            Layer("linear", 64, activation="relu", dropout=0.5),
            Layer("linear", "classes"),
        ),
    ),
    "digit": Architecture(
        "four convolutions with batch normalisation; its 128 features measure Frechet distances",
        (28, 28),
        _pairs(128, 32, 64),
    ),
    "photo_32": Architecture(
        "six convolutions with batch normalisation for small photographs; 256 features, as digit has 128",
        (32, 32),
        _pairs(256, 32, 64, 128),
    ),
    "digit_32": Architecture("Soft-CoGAN's for digits of 32x32: two convolutions without padding", (32, 32), _SOFT),
    "attributes": Architecture(
        "the same at 128x128, Soft-CoGAN's for the attributes of CelebA; a logit each", (128, 128), _SOFT
    ),
}


def _vgg(*blocks: tuple[int, int]) -> tuple[Layer, ...]:
    """Make rows of blocks, each so many convolutions to so many channels, with a pooling between them."""
    rows = []
    for number, (channels, length) in enumerate(blocks, start=1):
        pool = 1 if number == len(blocks) else 2  # pooling and ReLU change places
        rows += [_plain(channels)] * (length - 1) + [_plain(channels, pool=pool)]
    return tuple(rows)


FEATURES = {
    "vgg19": Architecture(
        "VGG19 up to its fourteenth convolution (Simonyan & Zisserman 2015, table 1, E): how images look",
        (224, 224),
        _vgg((64, 2), (128, 2), (256, 4), (512, 4), (512, 2)),
    )
}
