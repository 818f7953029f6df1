"""Each architecture's modules, in order, against a list written from the papers and the earlier code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from training.networks.layers import Block, ChannelNorm, Layer, build
from training.zoo import CLASSIFIERS, DISCRIMINATORS, ENCODERS, FEATURES, GENERATORS

TABLES = {
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
    "encoder": ENCODERS,
    "classifier": CLASSIFIERS,
    "features": FEATURES,
}
OUTPUTS = {"image": 3, "latent": 100, "logit": 1, "classes": 10}
WINDOWS: dict[type[nn.Module], str] = {nn.Conv2d: "conv", nn.ConvTranspose2d: "deconv"}
WORDS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}


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
            kind = next(name for window, name in WINDOWS.items() if isinstance(module, window))
            return f"{kind}{module.out_channels}/{numbers}{bias}"
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
        case Block():
            return f"[{printed_path(module.main)} + {printed_path(module.shortcut)}]"
        case nn.AvgPool2d():
            return f"mean{module.kernel_size}"
        case nn.Flatten():
            return "flatten"
        case nn.Unflatten():
            return "to" + "x".join(map(str, module.unflattened_size))
        case _:
            return WORDS.get(type(module), repr(module))


def printed_path(path: nn.Module) -> str:
    """Write the modules of one path of a block."""
    return " ".join(map(word, path.children()))


def printed(layers: Sequence[Layer], shape: tuple[int, int, int]) -> list[str]:
    """Build rows at full width, without memory for their weights, and write each as its modules' words."""
    with torch.device("meta"):
        rows = build(layers, shape, 1.0, OUTPUTS)[0].rows()
    return [" ".join([*map(word, modules), *["spectral"] * row.spectral]) for row, modules in rows]


def read_stated() -> dict[tuple[str, str], list[str]]:
    """Read modules.txt: lines of a kind and a name, then the rows of all of these tables, indented."""
    stated: dict[tuple[str, str], list[str]] = {}
    for block in Path(__file__).with_name("modules.txt").read_text().split("\n\n"):
        lines = block.splitlines()
        rows = [line.strip() for line in lines if line.startswith(" ")]
        for title in [line for line in lines if not line.startswith(" ")]:
            kind, name = title.split()
            stated[kind, name] = rows
    return stated


STATED = read_stated()


@pytest.mark.parametrize(("kind", "name"), STATED)
def test_a_table_is_made_of_the_modules_of_its_origin(kind: str, name: str) -> None:
    """Operations, windows, normalisations, slopes and dropout, each in its place."""
    table = TABLES[kind][name]
    shape = (100, 1, 1) if kind == "generator" else (3, *table.size)
    assert printed(table.layers, shape) == STATED[kind, name]


def test_every_table_is_stated() -> None:
    """A new table is written down in modules.txt, too."""
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
        {"skip": True},
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
