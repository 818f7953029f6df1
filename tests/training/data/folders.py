"""Folders of images of one level each, and the levels that are read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.training.data.picture_sets import SIZE
from training.config.data import DomainConfig
from training.data.dataset import ImageSet, load_split


def write(folder: Path, *levels: int, suffix: str = ".png", kind: str | None = None) -> Path:
    """Write images, each of one level and called by it, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for level in levels:
        Image.fromarray(np.full((*SIZE, 3), level, np.uint8)).save(folder / f"{level:03d}{suffix}", kind)
    return folder


def swap(first: Path, second: Path) -> None:
    """Give each of two files the name of the other."""
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


def load(source: Path, use: Any = "train", **changes: Any) -> ImageSet:
    """Load one use of a folder as a domain in colour."""
    return load_split(DomainConfig("photo", source=str(source), channels=3, **changes), use, SIZE)


def levels(source: Path, use: Any = "train", **changes: Any) -> list[int]:
    """Return the level of each image, to within what JPEG loses, in the order of their files."""
    images = load(source, use, **changes).images[:, 0].flatten(1).float()
    return [int(level) for level in images.median(1).values.round()]
