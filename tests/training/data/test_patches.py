"""Images blended with patches of photographs: each with its own, drawn by a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.picture_sets import SIZE, pictures, write_split
from training.config.data import DomainConfig, PatchesConfig, Use
from training.data.dataset import load_split
from training.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return six photographs of 32x40, laid out as CIFAR-10 is; each pixel encodes its place and photo."""
    y, x = np.mgrid[:32, :40]
    for split, first in (("train", 0), ("test", 100)):
        pixels = [np.stack([y, x, np.full_like(x, first + i)], 2).astype(np.uint8) for i in range(6)]
        write_split(tmp_path / "photos", split, {"img": [Image.fromarray(photo) for photo in pixels]})
    return tmp_path / "photos"


@pytest.fixture
def black(tmp_path: Path) -> Path:
    """Return a set of 40 black images, on which patches show as they are, and of a white one to test."""
    write_split(tmp_path / "black", "train", {"image": pictures(*[0] * 40)})
    return write_split(tmp_path / "black", "test", {"image": pictures(255)})


def blended(source: Path, photos: Path, use: Use = "train", **changes: Any) -> torch.Tensor:
    """Load a split in colour, with patches of photographs."""
    patches = PatchesConfig(source=str(photos), **({"image_column": "img"} | changes))
    domain = DomainConfig("mnistm", source=str(source), channels=3, patches=(patches,))
    return load_split(domain, use, SIZE).images


def test_each_image_has_a_patch_of_its_own(black: Path, photos: Path) -> None:
    """A patch is a whole, undistorted part of one photograph, anywhere in it; few images have the same."""
    patches = blended(black, photos).int()
    top, left, photo = patches[:, :, 0, 0].T
    y, x = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    assert torch.equal(patches[:, 0], top[:, None, None] + y)
    assert torch.equal(patches[:, 1], left[:, None, None] + x)
    assert torch.equal(patches[:, 2], photo[:, None, None].expand(-1, 28, 28))
    assert set(photo.tolist()) == set(range(6))
    assert (set(top.tolist()), set(left.tolist())) == (set(range(5)), set(range(13)))
    assert len(set(zip(top.tolist(), left.tolist(), photo.tolist(), strict=True))) > 30


def test_patches_are_blended_as_a_difference(black: Path, photos: Path) -> None:
    """On white, |patch - image| is the patch's negative; the test split has patches of the source's own."""
    (found,) = blended(black, photos, "test")
    assert 100 <= 255 - int(found[2, 0, 0]) < 106


def test_patches_follow_from_their_seed(black: Path, photos: Path) -> None:
    """The same seed gives the same images, another one others."""
    first, again, other = (blended(black, photos, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("folder", "column", "message"),
    [
        ("none", "img", r"source '.+none', split 'train' cannot be loaded"),
        ("photos", "image", r"image_column 'image' is not among the columns \['img'\]"),
        ("small", "img", r"image number 0 of '.+small' has 20 x 40 pixels, and patches 28 x 28"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_patches_that_cannot_be_had_are_named(
    black: Path, tmp_path: Path, folder: str, column: str, message: str
) -> None:
    """The error names the domain, the source of patches and what is wrong with it."""
    write_split(tmp_path / "small", "train", {"img": pictures(1, size=(20, 40))})
    with pytest.raises(DataError, match=f"domain mnistm: {message}"):
        blended(black, tmp_path / folder, image_column=column)
