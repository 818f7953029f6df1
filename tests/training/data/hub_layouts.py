"""What the hub's image sets look like: their columns, sizes and configurations, in a few made-up rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from tests.training.data.picture_sets import write_configurations, write_split

ROWS = 24
NEAREST = Image.Resampling.NEAREST


@dataclass(frozen=True)
class Layout:
    """Columns of images, each with its shape and how many rows have one, and columns of values."""

    images: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Sequence[object]] = field(default_factory=lambda: {"label": range(10)})
    rows: Mapping[str, int] = field(default_factory=dict)
    configurations: tuple[str, ...] = ()


PAIRED = {"imageA": (256, 256, 3), "imageB": (256, 256, 3)}
ATTRIBUTES = [
    "Arched_Eyebrows",
    "Attractive",
    "Blond_Hair",
    "Eyeglasses",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "No_Beard",
    "Oval_Face",
    "Pointy_Nose",
    "Smiling",
    "Wavy_Hair",
    "Wearing_Lipstick",
    "Young",
]
LAYOUTS = {
    "ylecun/mnist": Layout({"image": (28, 28)}),
    "zalando-datasets/fashion_mnist": Layout({"image": (28, 28)}),
    "flwrlabs/usps": Layout({"image": (16, 16)}),
    "uoft-cs/cifar10": Layout({"img": (32, 32, 3)}),
    "ufldl-stanford/svhn": Layout({"image": (32, 32, 3)}, configurations=("cropped_digits", "full_numbers")),
    "glyphs": Layout(
        {"regular": (32, 32), "italic": (32, 32)},
        {"label": "cCkKoOsSuUvVwWxXzZabdefg", "family": ("Serif", "Sans", "Mono", "Slab")},
    ),
    "printed_digits": Layout({"image": (28, 28)}, {"family": ("Serif", "Sans", "Mono", "Slab")}),
    "drawn_faces": Layout(dict.fromkeys(("plain", "glasses", "blond"), (64, 64, 3))),
    "flwrlabs/celeba": Layout(
        {"image": (218, 178, 3)},
        {"celeb_id": range(1, 9)}
        | {name: [(row + number) % 3 == 0 for row in range(3)] for number, name in enumerate(ATTRIBUTES)},
        configurations=("img_align+identity+attr",),
    ),
    "huggan/apple2orange": Layout(PAIRED, {}, {"imageA": 20}),
    "huggan/horse2zebra": Layout(PAIRED, {}, {"imageA": 19}),
    "huggan/vangogh2photo": Layout(PAIRED, {}, {"imageA": 6}),
}


def write_source(root: Path, source: str) -> None:
    """Write a made-up copy of a set of the hub below a data root: no two images of it are alike."""
    layout, folder = LAYOUTS[source], root / Path(source).name
    random = np.random.default_rng(crc32(source.encode()))
    for configuration in layout.configurations or ("",):
        for split in ("train", "test"):
            columns: dict[str, Sequence[object]] = {}
            for name, shape in layout.images.items():
                mosaics = random.integers(0, 256, (ROWS, 8, 8, *shape[2:]), np.uint8)
                pictures = [Image.fromarray(one).resize((shape[1], shape[0]), NEAREST) for one in mosaics]
                count = layout.rows.get(name, ROWS)
                columns[name] = [*pictures[:count], *[None] * (ROWS - count)]
            for name, values in layout.values.items():
                columns[name] = [values[i % len(values)] for i in range(ROWS)]
            write_split(folder / configuration, split, columns)
    if layout.configurations:
        write_configurations(folder, layout.configurations)
