"""Each table's modules, in order, against a list written from the papers and the earlier systems' code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from training.architectures import CLASSIFIERS, DISCRIMINATORS, ENCODERS, FEATURES, GENERATORS, Layer
from training.networks.rows import ChannelNorm, build

TABLES = {
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
    "encoder": ENCODERS,
    "classifier": CLASSIFIERS,
    "features": FEATURES,
}
OUTPUTS = {"image": 3, "latent": 100, "logit": 1, "classes": 10}
WINDOWS: dict[type[nn.Module], str] = {nn.Conv2d: "conv", nn.ConvTranspose2d: "deconv"}
WORDS: dict[type[nn.Module], str] = {
    nn.Flatten: "flatten",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}


def word(module: nn.Module) -> str:
    """Write a module as a word: its kind and every setting that changes what it computes.

    conv512/3/2/1 has 512 outputs, a 3x3 window, stride 2 and padding 1; ! stands for no bias, eps and
    learned scale of a normalisation for themselves. A module that is not known is written as PyTorch does.
    """
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            sides = (module.kernel_size, module.stride, module.padding)
            numbers = "/".join(str(side[0]) if isinstance(side, tuple) else side for side in sides)
            bias = "" if module.bias is not None else "!"
            return f"{WINDOWS[type(module)]}{module.out_channels}/{numbers}{bias}"
        case nn.Linear():
            return f"dense{module.out_features}{'' if module.bias is not None else '!'}"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"batch({module.eps:g}{'' if module.affine else ', no scale'})"
        case nn.LayerNorm():
            return f"{'channels' if isinstance(module, ChannelNorm) else 'layer'}({module.eps:g})"
        case nn.PReLU():
            return f"prelu({module.init:g})"
        case nn.LeakyReLU():
            return f"leaky({module.negative_slope:g})"
        case nn.Dropout():
            return f"drop({module.p:g})"
        case nn.Dropout2d():
            return f"drop_channels({module.p:g})"
        case nn.MaxPool2d():
            return f"pool{module.kernel_size}"
        case nn.Upsample():
            return f"repeat{module.scale_factor:g}"
        case nn.ZeroPad2d():
            return f"pad{module.padding}"
        case nn.Unflatten():
            return "to" + "x".join(map(str, module.unflattened_size))
        case _:
            return WORDS.get(type(module), repr(module))


def printed(layers: Sequence[Layer], shape: tuple[int, int, int]) -> list[str]:
    """Build rows at full width, without memory for their weights, and write each as its modules' words."""
    with torch.device("meta"):
        rows = build(layers, shape, 1.0, OUTPUTS)[0].rows()
    return [" ".join([*map(word, modules), *["spectral"] * row.spectral]) for row, modules in rows]


ENCODER = """
        conv64/3/1/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv256/3/2/1 leaky(0.2) drop(0.4)
        flatten dense100
"""
SOFT_CLASSIFIER = """
        conv32/3/1/0 leaky(0.3)
        conv64/3/1/0 pool2 leaky(0.3) drop(0.25)
        flatten dense128 leaky(0.3) drop(0.5)
        flatten dense10
"""
STATED = {
    ("generator", "digit"): """
        deconv1024/4/1/0! batch(1e-05, no scale) prelu(0.25)
        deconv512/3/2/1! batch(1e-05, no scale) prelu(0.25)
        deconv256/3/2/1! batch(1e-05, no scale) prelu(0.25)
        deconv128/3/2/1! batch(1e-05, no scale) prelu(0.25)
        deconv3/6/1/1 sigmoid
    """,
    ("generator", "digit_leaky"): """
        deconv1024/4/1/0! batch(1e-05) leaky(0.2)
        deconv512/3/2/1! batch(1e-05) leaky(0.2)
        deconv256/3/2/1! batch(1e-05) leaky(0.2)
        deconv128/3/2/1! batch(1e-05) leaky(0.2)
        deconv3/6/1/1 tanh
    """,
    ("generator", "digit_wide"): """
        deconv1024/4/1/0! batch(1e-05) leaky(0.2)
        deconv512/3/2/1! batch(1e-05) leaky(0.2)
        deconv256/3/2/1! batch(1e-05) leaky(0.2)
        deconv256/3/2/1! batch(1e-05) leaky(0.2)
        deconv3/6/1/1 tanh
    """,
    ("generator", "digit_doubling"): """
        flatten dense6272! to128x7x7 batch(1e-05) leaky(0.2)
        deconv64/4/2/1! batch(1e-05) leaky(0.2)
        deconv32/4/2/1! batch(1e-05) leaky(0.2)
        conv3/5/1/2 tanh
    """,
    ("generator", "digit_32"): """
        flatten dense16384! to1024x4x4 batch(0.001) prelu(0.25)
        deconv512/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0)
        deconv256/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0)
        deconv128/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0)
        deconv3/6/1/2 pad(0, -1, 0, -1) tanh
    """,
    ("generator", "digit_32_unshared"): """
        flatten dense16384! to1024x4x4 batch(0.001) prelu(0.25)
        deconv512/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv256/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv128/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv3/6/1/2 pad(0, -1, 0, -1) tanh
    """,
    ("generator", "digit_32_first"): """
        flatten dense16384! to1024x4x4 batch(0.001) prelu(0.25)
        deconv1024/4/1/1! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv512/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv256/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv128/3/2/0! pad(0, -1, 0, -1) batch(0.001) prelu(0.25)
        deconv3/6/1/2 pad(0, -1, 0, -1) tanh
    """,
    ("generator", "dcgan_digit"): """
        flatten dense6272! to128x7x7 batch(1e-05) prelu(0)
        deconv128/5/2/1! pad(0, -1, 0, -1) batch(1e-05) prelu(0)
        deconv3/5/2/1 pad(0, -1, 0, -1) sigmoid
    """,
    ("generator", "dcgan_28"): """
        deconv100/2/1/0! batch(1e-05) relu
        deconv25/3/2/0! batch(1e-05) relu
        deconv6/4/2/0! batch(1e-05) relu
        deconv3/6/2/0 tanh
    """,
    ("generator", "dcgan_32"): """
        deconv384/2/1/0! batch(1e-05) relu
        deconv128/4/2/0! batch(1e-05) relu
        deconv64/4/2/0! batch(1e-05) relu
        deconv3/6/2/0 tanh
    """,
    ("generator", "upsample"): """
        flatten dense8192! to128x8x8 batch(1e-05)
        repeat2 conv128/3/1/1! batch(0.8) leaky(0.2)
        repeat2 conv64/3/1/1! batch(0.8) leaky(0.2)
        conv3/3/1/1 tanh
    """,
    ("generator", "connected"): """
        flatten dense1024 prelu(0.25) batch(0.001)
        flatten dense1024 prelu(0.25) batch(0.001)
        flatten dense1024 prelu(0.25) batch(0.001)
        flatten dense1024 prelu(0.25) batch(0.001)
        flatten dense3072 to3x32x32 sigmoid
    """,
    ("generator", "cifar"): """
        flatten dense4096 to256x4x4
        deconv128/4/1/1! pad(0, -1, 0, -1) batch(0.001) leaky(0.2)
        deconv128/4/2/1! batch(0.001) leaky(0.2)
        deconv128/4/2/1! batch(0.001) leaky(0.2)
        deconv256/4/2/1! batch(0.001) leaky(0.2)
        pad(0, 1, 0, 1) conv3/6/1/2 tanh
    """,
    ("generator", "photo_64"): """
        flatten dense16384 to1024x4x4
        deconv512/3/2/0! pad(0, -1, 0, -1) batch(0.001) leaky(0.2)
        deconv256/3/2/0! pad(0, -1, 0, -1) batch(0.001) leaky(0.2)
        deconv128/3/2/0! pad(0, -1, 0, -1) batch(0.001) leaky(0.2)
        deconv128/3/2/0! pad(0, -1, 0, -1) batch(0.001) leaky(0.2)
        deconv3/6/1/2 pad(0, -1, 0, -1) tanh
    """,
    ("generator", "face"): """
        flatten dense16384! to1024x4x4 batch(1e-05) prelu(0.25)
        deconv512/4/2/1! batch(1e-05) prelu(0.25)
        deconv256/4/2/1! batch(1e-05) prelu(0.25)
        deconv128/4/2/1! batch(1e-05) prelu(0.25)
        deconv64/4/2/1! batch(1e-05) prelu(0.25)
        deconv32/4/2/1! batch(1e-05) prelu(0.25)
        deconv3/3/1/1 tanh
    """,
    ("generator", "photo_128"): """
        flatten dense16384! to1024x4x4 batch(0.001) prelu(0.25)
        deconv512/4/2/1! batch(0.001) prelu(0.25)
        deconv256/4/2/1! batch(0.001) prelu(0.25)
        deconv128/4/2/1! batch(0.001) prelu(0.25)
        deconv64/4/2/1! batch(0.001) prelu(0.25)
        deconv32/4/2/1! batch(0.001) prelu(0.25)
        deconv3/3/1/1 tanh
    """,
    ("generator", "photo_256"): """
        flatten dense32768! to2048x4x4 batch(0.001) prelu(0.25)
        deconv1024/4/2/1! batch(0.001) leaky(0.3)
        deconv512/4/2/1! batch(0.001) leaky(0.3)
        deconv256/4/2/1! batch(0.001) prelu(0.25)
        deconv128/4/2/1! batch(0.001) prelu(0.25)
        deconv64/4/2/1! batch(0.001) prelu(0.25)
        deconv32/4/2/1! batch(0.001) prelu(0.25)
        deconv3/3/1/1 tanh
    """,
    ("generator", "photo_256_deep"): """
        flatten dense32768! to2048x4x4 batch(0.001) prelu(0.25)
        deconv1024/4/2/1! batch(0.001) prelu(0.25)
        deconv512/4/2/1! batch(0.001) prelu(0.25)
        deconv256/4/2/1! batch(0.001) prelu(0.25)
        deconv128/4/2/1! batch(0.001) prelu(0.25)
        deconv64/4/2/1! batch(0.001) prelu(0.25)
        deconv32/4/2/1! batch(0.001) prelu(0.25)
        deconv3/3/1/1 tanh
    """,
    ("discriminator", "digit"): """
        conv20/5/1/0 pool2
        conv50/5/1/0 pool2
        conv500/4/1/0 prelu(0.25)
        conv1/1/1/0
    """,
    ("discriminator", "digit_32"): """
        conv20/5/1/2 pool2
        conv50/5/1/2 pool2
        flatten dense500 prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "digit_strided"): """
        conv128/5/2/2 leaky(0.2)
        conv256/5/2/2 leaky(0.2)
        flatten dense1024 leaky(0.2)
        flatten dense1
    """,
    ("discriminator", "digit_spectral"): """
        conv128/5/2/2 leaky(0.2) spectral
        conv256/5/2/2 leaky(0.2) spectral
        flatten dense1024 leaky(0.2) spectral
        flatten dense1 spectral
    """,
    ("discriminator", "dcgan_digit"): """
        pad(0, 1, 0, 1) conv1/5/2/1 prelu(0)
        pad(0, 1, 0, 1) conv64/5/2/1! batch(1e-05) prelu(0)
        flatten dense1024! batch(1e-05) prelu(0)
        flatten dense1
    """,
    ("discriminator", "dcgan_28"): """
        pad(0, 1, 0, 1) conv32/5/2/1 leaky(0.2) batch(1e-05) drop(0.5)
        pad(0, 1, 0, 1) conv64/5/2/1 leaky(0.2) batch(1e-05) drop(0.5)
        conv128/5/2/2 leaky(0.2) batch(1e-05) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "dcgan_32"): """
        pad(0, 1, 0, 1) conv64/5/2/1 leaky(0.2) batch(1e-05) drop(0.5)
        pad(0, 1, 0, 1) conv128/5/2/1 leaky(0.2) batch(1e-05) drop(0.5)
        pad(0, 1, 0, 1) conv256/5/2/1 leaky(0.2) batch(1e-05) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "upsample"): """
        conv16/3/2/1 leaky(0.2) drop_channels(0.25)
        conv32/3/2/1! batch(0.8) leaky(0.2) drop_channels(0.25)
        conv64/3/2/1! batch(0.8) leaky(0.2) drop_channels(0.25)
        conv128/3/2/1! batch(0.8) leaky(0.2) drop_channels(0.25)
        flatten dense1
    """,
    ("discriminator", "connected"): """
        conv20/5/1/2 pool2
        conv50/5/1/2 pool2
        conv500/1/1/0 leaky(0.3)
        flatten dense1
    """,
    ("discriminator", "cifar"): """
        conv64/3/1/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv256/3/2/1 leaky(0.2) drop(0.4)
        flatten dense1
    """,
    ("discriminator", "photo_64"): """
        conv64/3/1/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv128/3/2/1 leaky(0.2)
        conv256/3/2/1 leaky(0.2)
        conv512/3/2/1 leaky(0.2) drop(0.4)
        flatten dense1
    """,
    ("discriminator", "face"): """
        conv32/5/2/2! batch(1e-05) prelu(0.25)
        conv64/5/2/2! batch(1e-05) prelu(0.25)
        conv128/5/2/2! batch(1e-05) prelu(0.25) drop(0.1)
        conv256/3/2/1! batch(1e-05) prelu(0.25) drop(0.3)
        conv512/3/2/1! batch(1e-05) prelu(0.25) drop(0.3)
        conv1024/3/2/1! batch(1e-05) prelu(0.25) drop(0.5)
        flatten dense2048! batch(1e-05) prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "photo_128"): """
        conv32/5/2/2! batch(0.001) prelu(0.25)
        conv64/5/2/2! batch(0.001) prelu(0.25)
        conv128/5/2/2! batch(0.001) prelu(0.25) drop(0.1)
        conv256/3/2/1! batch(0.001) prelu(0.25) drop(0.3)
        conv512/3/2/1! batch(0.001) prelu(0.25) drop(0.3)
        conv1024/3/2/1! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense2048! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "face_layer_norm"): """
        conv32/5/2/2 channels(0.001) prelu(0.25)
        conv64/5/2/2 channels(0.001) prelu(0.25)
        conv128/5/2/2 channels(0.001) prelu(0.25) drop(0.1)
        conv256/3/2/1 channels(0.001) prelu(0.25) drop(0.3)
        conv512/3/2/1 channels(0.001) prelu(0.25) drop(0.3)
        conv1024/3/2/1 channels(0.001) prelu(0.25) drop(0.5)
        flatten dense2048 layer(0.001) prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "photo_256"): """
        conv32/5/2/2! batch(0.001) prelu(0.25)
        conv64/5/2/2! batch(0.001) prelu(0.25)
        conv128/5/2/2! batch(0.001) prelu(0.25) drop(0.1)
        conv256/5/2/2! batch(0.001) prelu(0.25) drop(0.3)
        conv512/5/2/2! batch(0.001) prelu(0.25) drop(0.3)
        conv1024/5/2/2! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense2048! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("discriminator", "photo_256_deep"): """
        conv32/5/2/2! batch(0.001) prelu(0.25)
        conv64/5/2/2! batch(0.001) prelu(0.25)
        conv128/5/2/2! batch(0.001) prelu(0.25) drop(0.1)
        conv256/5/2/2! batch(0.001) prelu(0.25) drop(0.3)
        conv512/5/2/2! batch(0.001) prelu(0.25) drop(0.3)
        conv1024/5/2/2! batch(0.001) prelu(0.25) drop(0.5)
        conv2048/5/2/2! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense4096! batch(0.001) prelu(0.25) drop(0.5)
        flatten dense1
    """,
    ("encoder", "digit"): ENCODER,
    ("encoder", "plain_32"): ENCODER,
    ("encoder", "plain_64"): ENCODER,
    ("encoder", "plain_128"): ENCODER,
    ("encoder", "plain_256"): ENCODER,
    ("classifier", "digit_small"): """
        conv16/5/2/2! batch(1e-05) relu
        conv32/5/2/2! batch(1e-05) relu
        flatten dense64 relu drop(0.5)
        flatten dense10
    """,
    ("classifier", "digit"): """
        conv32/3/1/1! batch(1e-05) relu
        conv32/3/1/1! pool2 batch(1e-05) relu
        conv64/3/1/1! batch(1e-05) relu
        conv64/3/1/1! pool2 batch(1e-05) relu
        flatten dense128 relu drop(0.5)
        flatten dense10
    """,
    ("classifier", "photo_32"): """
        conv32/3/1/1! batch(1e-05) relu
        conv32/3/1/1! pool2 batch(1e-05) relu
        conv64/3/1/1! batch(1e-05) relu
        conv64/3/1/1! pool2 batch(1e-05) relu
        conv128/3/1/1! batch(1e-05) relu
        conv128/3/1/1! pool2 batch(1e-05) relu
        flatten dense256 relu drop(0.5)
        flatten dense10
    """,
    ("classifier", "digit_32"): SOFT_CLASSIFIER,
    ("classifier", "attributes"): SOFT_CLASSIFIER,
    ("features", "vgg19"): """
        conv64/3/1/1 relu
        conv64/3/1/1 pool2 relu
        conv128/3/1/1 relu
        conv128/3/1/1 pool2 relu
        conv256/3/1/1 relu
        conv256/3/1/1 relu
        conv256/3/1/1 relu
        conv256/3/1/1 pool2 relu
        conv512/3/1/1 relu
        conv512/3/1/1 relu
        conv512/3/1/1 relu
        conv512/3/1/1 pool2 relu
        conv512/3/1/1 relu
        conv512/3/1/1 relu
    """,
}


@pytest.mark.parametrize(("kind", "name"), STATED)
def test_a_table_is_made_of_the_modules_of_its_origin(kind: str, name: str) -> None:
    """Operations, windows, normalisations, slopes and dropout, each in its place."""
    table = TABLES[kind][name]
    shape = (100, 1, 1) if kind == "generator" else (3, *table.size)
    stated = [line.strip() for line in STATED[kind, name].strip().splitlines()]
    assert printed(table.layers, shape) == stated


def test_every_table_is_stated() -> None:
    """A new table is written down above, too."""
    assert set(STATED) == {(kind, name) for kind, tables in TABLES.items() for name in tables}


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "deconv"},
        {"out": 9},
        {"kernel": 5},
        {"stride": 1},
        {"padding": 2},
        {"padding": "same"},
        {"enlarge": 2},
        {"pool": 2},
        {"norm": "none"},
        {"norm": "layer"},
        {"eps": 1e-3},
        {"affine": False},
        {"norm_last": True},
        {"activation": "relu"},
        {"activation": "leaky_relu"},
        {"activation": "sigmoid"},
        {"activation": "tanh"},
        {"activation": "none"},
        {"slope": 0.0},
        {"dropout": 0.3},
        {"channel_dropout": 0.3},
        {"spectral": True},
    ],
    ids=str,
)
def test_a_change_of_any_field_shows(change: dict[str, object]) -> None:
    """A row with another value in one field is written otherwise, so no table can drift unseen."""
    row = Layer("conv", 8, 3, 2, 1, norm="batch", activation="prelu", slope=0.25, dropout=0.1)
    changed = replace(row, **change)  # type: ignore[arg-type]  # of any field
    assert printed([row], (3, 16, 16)) != printed([changed], (3, 16, 16))


@pytest.mark.parametrize("slope", [0.2, 0.3])
def test_a_leaky_slope_shows(slope: float) -> None:
    """It is the row's."""
    assert printed([Layer("conv", 8, activation="leaky_relu", slope=slope)], (3, 16, 16)) == [
        f"conv8/1/1/0 leaky({slope})"
    ]
