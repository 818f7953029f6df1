"""Architectures against the papers and the earlier systems: maps, weights and borders."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

from training.networks.coupled import CoupledGenerator
from training.networks.layers import Architecture, Layers, build
from training.zoo import CLASSIFIERS, DISCRIMINATORS, ENCODERS, FAMILIES, GENERATORS, modern

TABLES = {"generator": GENERATORS, "discriminator": DISCRIMINATORS, "encoder": ENCODERS, "classifier": CLASSIFIERS}
OUTPUTS = {"latent": 100, "logit": 1, "classes": 10}
DOUBLINGS = 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 32)  # from 1024 channels to 32
PLAIN = 9 * (3 * 64 + 64 * 128 + 128 * 128 + 128 * 256)  # Soft-CoGAN's four 3x3 convolutions
FACE = 25 * (3 * 32 + 32 * 64 + 64 * 128) + 9 * (128 * 256 + 256 * 512 + 512 * 1024)
WIDE = 25 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)


class Stated(NamedTuple):
    """Channels of the image, `side x channels` of what each row puts out, weights of the operations."""

    channels: int
    maps: str
    weights: int


LAYERS = {
    ("generator", "digit"): Stated(
        1, "4x1024 7x512 13x256 25x128 28x1", 16 * 100 * 1024 + 9 * (1024 * 512 + 512 * 256 + 256 * 128) + 36 * 128
    ),
    ("generator", "digit_32"): Stated(
        3, "4x1024 8x512 16x256 32x128 32x3", 16 * 100 * 1024 + 9 * (1024 * 512 + 512 * 256 + 256 * 128) + 36 * 128 * 3
    ),
    ("generator", "digit_32_unshared"): Stated(
        3, "4x1024 8x512 16x256 32x128 32x3", 16 * 100 * 1024 + 9 * (1024 * 512 + 512 * 256 + 256 * 128) + 36 * 128 * 3
    ),
    ("generator", "digit_32_first"): Stated(
        3,
        "4x1024 4x1024 8x512 16x256 32x128 32x3",
        16 * (100 + 1024) * 1024 + 9 * (1024 * 512 + 512 * 256 + 256 * 128) + 36 * 128 * 3,
    ),
    ("generator", "dcgan_digit"): Stated(1, "7x128 14x128 28x1", 100 * 6272 + 25 * (128 * 128 + 128)),
    ("generator", "dcgan_28"): Stated(1, "2x100 5x25 12x6 28x1", 4 * 100 * 100 + 9 * 100 * 25 + 16 * 25 * 6 + 36 * 6),
    ("generator", "dcgan_32"): Stated(
        3, "2x384 6x128 14x64 32x3", 4 * 100 * 384 + 16 * (384 * 128 + 128 * 64) + 36 * 64 * 3
    ),
    ("generator", "upsample"): Stated(3, "8x128 16x128 32x64 32x3", 100 * 8192 + 9 * (128 * 128 + 128 * 64 + 64 * 3)),
    ("generator", "connected"): Stated(
        1, "1x1024 1x1024 1x1024 1x1024 32x1", 100 * 1024 + 3 * 1024 * 1024 + 1024 * 1024
    ),
    ("generator", "cifar"): Stated(
        3,
        "4x256 4x128 8x128 16x128 32x256 32x3",
        16 * (100 * 256 + 256 * 128 + 2 * 128 * 128 + 128 * 256) + 36 * 256 * 3,
    ),
    ("generator", "photo_64"): Stated(
        3,
        "4x1024 8x512 16x256 32x128 64x128 64x3",
        16 * 100 * 1024 + 9 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 128) + 36 * 128 * 3,
    ),
    ("generator", "face"): Stated(
        3, "4x1024 8x512 16x256 32x128 64x64 128x32 128x3", 16 * 100 * 1024 + DOUBLINGS + 9 * 32 * 3
    ),
    ("generator", "photo_128"): Stated(
        3, "4x1024 8x512 16x256 32x128 64x64 128x32 128x3", 16 * 100 * 1024 + DOUBLINGS + 9 * 32 * 3
    ),
    ("generator", "photo_256_deep"): Stated(
        3,
        "4x2048 8x1024 16x512 32x256 64x128 128x64 256x32 256x3",
        16 * (100 * 2048 + 2048 * 1024) + DOUBLINGS + 9 * 32 * 3,
    ),
    ("generator", "photo_256"): Stated(
        3,
        "4x2048 8x1024 16x512 32x256 64x128 128x64 256x32 256x3",
        16 * (100 * 2048 + 2048 * 1024) + DOUBLINGS + 9 * 32 * 3,
    ),
    ("discriminator", "digit"): Stated(1, "12x20 4x50 1x500 1x1", 25 * (20 + 20 * 50) + 16 * 50 * 500 + 500),
    ("discriminator", "digit_32"): Stated(3, "16x20 8x50 1x500 1x1", 25 * (60 + 20 * 50) + 3200 * 500 + 500),
    ("discriminator", "dcgan_digit"): Stated(1, "14x1 7x64 1x1024 1x1", 25 * (1 + 64) + 3136 * 1024 + 1024),
    ("discriminator", "dcgan_28"): Stated(1, "14x32 7x64 4x128 1x1", 25 * (32 + 32 * 64 + 64 * 128) + 16 * 128),
    ("discriminator", "dcgan_32"): Stated(3, "16x64 8x128 4x256 1x1", 25 * (3 * 64 + 64 * 128 + 128 * 256) + 16 * 256),
    ("discriminator", "upsample"): Stated(
        3, "16x16 8x32 4x64 2x128 1x1", 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 128) + 512
    ),
    ("discriminator", "connected"): Stated(1, "16x20 8x50 8x500 1x1", 25 * (20 + 20 * 50) + 50 * 500 + 64 * 500),
    ("discriminator", "cifar"): Stated(3, "32x64 16x128 8x128 4x256 1x1", PLAIN + 16 * 256),
    ("discriminator", "photo_64"): Stated(
        3, "64x64 32x128 16x128 8x128 4x256 2x512 1x1", PLAIN + 9 * (128 * 128 + 256 * 512) + 4 * 512
    ),
    ("discriminator", "face"): Stated(3, "64x32 32x64 16x128 8x256 4x512 2x1024 1x2048 1x1", FACE + 4096 * 2048 + 2048),
    ("discriminator", "photo_128"): Stated(
        3, "64x32 32x64 16x128 8x256 4x512 2x1024 1x2048 1x1", FACE + 4096 * 2048 + 2048
    ),
    ("discriminator", "face_layer_norm"): Stated(
        3, "64x32 32x64 16x128 8x256 4x512 2x1024 1x2048 1x1", FACE + 4096 * 2048 + 2048
    ),
    ("discriminator", "photo_256"): Stated(
        3, "128x32 64x64 32x128 16x256 8x512 4x1024 1x2048 1x1", WIDE + 16384 * 2048 + 2048
    ),
    ("discriminator", "photo_256_deep"): Stated(
        3, "128x32 64x64 32x128 16x256 8x512 4x1024 2x2048 1x4096 1x1", WIDE + 25 * 1024 * 2048 + 8192 * 4096 + 4096
    ),
    ("encoder", "plain_32"): Stated(3, "32x64 16x128 8x128 4x256 1x100", PLAIN + 4096 * 100),
    ("encoder", "plain_128"): Stated(3, "128x64 64x128 32x128 16x256 1x100", PLAIN + 65536 * 100),
    ("classifier", "digit_32"): Stated(3, "30x32 14x64 1x128 1x10", 9 * (3 * 32 + 32 * 64) + 12_544 * 128 + 128 * 10),
    ("classifier", "attributes"): Stated(
        3, "126x32 62x64 1x128 1x10", 9 * (3 * 32 + 32 * 64) + 246_016 * 128 + 128 * 10
    ),
}


def count(network: nn.Module) -> int:
    """Count the weights of a network."""
    return sum(weight.numel() for weight in network.parameters())


def built(kind: str, table: Architecture, channels: int) -> Layers:
    """Build a table at full width, without memory for its weights."""
    shape = (100, 1, 1) if kind == "generator" else (channels, *table.size)
    with torch.device("meta"):
        return build(table.layers, shape, 1.0, OUTPUTS | {"image": channels})[0]


@pytest.mark.parametrize(("kind", "name"), LAYERS)
def test_a_table_has_the_layers_of_its_origin(kind: str, name: str) -> None:
    """Each row puts out the map that is stated of it, and the operations have as many weights."""
    channels, maps, weights = LAYERS[kind, name]
    table = TABLES[kind][name]
    layers = built(kind, table, channels)
    features = torch.empty(2, *((100, 1, 1) if kind == "generator" else (channels, *table.size)), device="meta")
    seen = []
    for _, modules in layers.rows():
        for module in modules:
            features = module(features)
        seen.append(tuple(features.shape[1:]))
    stated = [tuple(map(int, one.split("x"))) for one in maps.split()]
    assert [(shape[-1] if len(shape) > 1 else 1, shape[0]) for shape in seen] == stated
    assert sum(weight.numel() for weight in layers.parameters() if weight.ndim > 1) == weights


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_every_table_of_an_earlier_system_is_held_to_it(kind: str) -> None:
    """A new table is stated above, unless it is a variant of this project's own."""
    own = {"digit_leaky", "digit_wide", "digit_doubling", "digit_mapped", "digit_strided", "digit_spectral"}
    own |= modern.GENERATORS.keys()  # the same names for both
    assert {name for stated, name in LAYERS if stated == kind} == set(TABLES[kind]) - own


@pytest.mark.parametrize("kind", TABLES)
def test_a_name_stands_for_one_table(kind: str) -> None:
    """No family takes another's name, and each table has its sentence."""
    registries = {"generator": "GENERATORS", "discriminator": "DISCRIMINATORS"}
    if kind in registries:
        assert len(TABLES[kind]) == sum(len(getattr(family, registries[kind])) for family in FAMILIES)
    sentences = [table.about for table in TABLES[kind].values()]
    assert len(set(sentences)) == len(sentences)
    assert all(20 < len(sentence) < 110 for sentence in sentences)


def generator(name: str, channels: int, shared: int) -> CoupledGenerator:
    """Build a generator of two domains at full width, without memory for its weights."""
    with torch.device("meta"):
        return CoupledGenerator(GENERATORS[name], {"a": channels, "b": channels}, 100, 1, shared)


def test_the_coupled_face_has_its_weights() -> None:
    """A port with a bias everywhere counts 12.87 million, 12.80 of them shared; a norm makes biases idle."""
    face = generator("face", 3, shared=5)
    idle = 4 * 4 * 1024 + 512 + 256 + 128 + 64, 2 * 32
    assert (count(face.trunk) + idle[0]) / 1e6 == pytest.approx(12.80, abs=0.005)
    assert (count(face) + sum(idle)) / 1e6 == pytest.approx(12.87, abs=0.005)
    norms, slopes = 2 * (1024 + 512 + 256 + 128 + 64), 5
    assert count(face.trunk) == 16 * (100 * 1024 - 64 * 32) + DOUBLINGS + norms + slopes


def test_the_coupled_dcgan_digit_has_its_living_weights() -> None:
    """CoGAN-tensorflow's has 1.06 million that are used, with idle biases and a norm of every value."""
    digit = generator("dcgan_digit", 1, shared=2)
    idle_biases, norm_of_values, norm_of_channels = 6272 + 128, 2 * 6272, 2 * 128
    theirs = count(digit) + idle_biases + norm_of_values - norm_of_channels
    assert theirs / 1e6 == pytest.approx(1.06, abs=0.005)
