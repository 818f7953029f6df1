"""Small image sets on the disk, laid out as the hub lays out its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

SIZE = (28, 28)
Columns = Mapping[str, Sequence[object]]
KINDS = {int: "int64", str: "string", bool: "bool", float: "float64"}


def pictures(*levels: int, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    """Make grey images, each of one level all over."""
    return [Image.fromarray(np.full(size, level, np.uint8)) for level in levels]


def write_split(folder: Path, split: str, columns: Columns) -> Path:
    """Write a split as parquet into a folder, and return it; pictures become images, and labels in words classes."""
    features = datasets.Features({name: _feature(name, values) for name, values in columns.items()})
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(dict(columns), features=features)
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def write_configurations(folder: Path, configurations: Sequence[str]) -> None:
    """Write the README by which the hub gives each configuration of a set its own folder."""
    lines = ["---", "configs:"]
    for name in configurations:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split in ("train", "test"):
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def _feature(name: str, values: Sequence[object]) -> datasets.Image | datasets.Value | datasets.ClassLabel:
    first = values[0]
    if name == "label" and isinstance(first, str):
        return datasets.ClassLabel(names=list(dict.fromkeys(values)))
    return datasets.Image() if isinstance(first, Image.Image) else datasets.Value(KINDS[type(first)])
