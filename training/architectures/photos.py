"""Coupled networks for photographs, from 32x32 to 256x256: faces, and what Soft-CoGAN drew."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from training.architectures.blocks import narrowing
from training.architectures.layers import Layer, Table

_learned = partial(Layer, norm="batch", activation="prelu", slope=0.25)
_doubling = partial(_learned, "deconv", kernel=4, stride=2, padding=1)
_halving = partial(_learned, "conv", stride=2)
_leaky = partial(Layer, "deconv", norm="batch", activation="leaky_relu")
_image = partial(Layer, out="image", activation="tanh")

GENERATORS = {
    "cifar": Table(
        "Soft-CoGAN's for CIFAR-10 (its type 32): narrow, and wider at the end",
        (32, 32),
        (
            Layer("linear", 256, 4, activation="leaky_relu"),
            _leaky(128, 4, 1, "same"),
            _leaky(128, 4, 2, 1),  # 8x8
            _leaky(128, 4, 2, 1),  # 16x16
            _leaky(256, 4, 2, 1),  # 32x32
            _image("conv", kernel=6, padding="same"),
        ),
    ),
    "photo_64": Table(
        "Soft-CoGAN's type 64, begun at 4x4 so that it draws 64x64 and not 256x256",
        (64, 64),
        (
            _leaky(1024, 4),
            *(_leaky(out, 3, 2, "same") for out in (512, 256, 128, 128)),  # 8x8 to 64x64
            _image("deconv", kernel=6, padding="same"),
        ),
    ),
    "face": Table(
        "the official CelebA generator at 128x128, which Soft-CoGAN coupled; also its type 128",
        (128, 128),
        (
            _learned("linear", 1024, 4),
            *(_doubling(out) for out in (512, 256, 128, 64, 32)),  # 8x8 to 128x128
            _image("deconv", kernel=3, padding=1),
        ),
    ),
    "photo_256": Table(
        "Soft-CoGAN's 256: face with twice the channels at first and one doubling more",
        (256, 256),
        (
            _learned("linear", 2048, 4),
            *(_doubling(out, activation="leaky_relu", slope=0.3) for out in (1024, 512)),  # 8x8, 16x16
            *(_doubling(out) for out in (256, 128, 64, 32)),  # 32x32 to 256x256
            _image("deconv", kernel=3, padding=1),
        ),
    ),
}

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
    "cifar": Table(
        "Soft-CoGAN's for CIFAR-10: four convolutions and no normalisation",
        (32, 32),
        (*narrowing(64, 128, 128, 256), Layer("linear", "logit")),
    ),
    "photo_64": Table(
        "Soft-CoGAN's type 64: cifar with two convolutions more",
        (64, 64),
        (*narrowing(64, 128, 128, 128, 256, 512), Layer("linear", "logit")),
    ),
    "face": Table(
        "the official CelebA discriminator at 128x128; Soft-CoGAN shares all but its first two rows",
        (128, 128),
        _FACE,
    ),
    "face_layer_norm": Table(
        "face with layer normalisation, as Soft-CoGAN has it without sharing: fit for a gradient penalty",
        (128, 128),
        tuple(replace(layer, norm="layer") if layer.norm == "batch" else layer for layer in _FACE),
    ),
    "photo_256": Table(
        "Soft-CoGAN's 256, coupled: six wide convolutions; all but the first two rows are shared",
        (256, 256),
        (
            *(_halving(out, 5, padding=2) for out in (32, 64)),  # 128x128, 64x64
            _halving(128, 5, padding=2, dropout=0.1),  # 32x32
            *(_halving(out, 5, padding=2, dropout=0.3) for out in (256, 512)),  # 16x16, 8x8
            _halving(1024, 5, padding=2, dropout=0.5),  # 4x4
            _learned("linear", 2048, dropout=0.5),
            Layer("linear", "logit"),
        ),
    ),
    "photo_256_deep": Table(
        "Soft-CoGAN's type 256, of one domain: seven wide convolutions and no dropout",
        (256, 256),
        (
            *(_halving(out, 5, padding=2) for out in (32, 64, 128, 256, 512, 1024, 2048)),  # to 2x2
            _learned("linear", 4096),
            Layer("linear", "logit"),
        ),
    ),
}
