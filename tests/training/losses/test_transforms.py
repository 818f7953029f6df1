"""What the transforms make of images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.losses.pixels import TRANSFORMS, transform


def image(rows: list[list[int]]) -> Tensor:
    """Make a batch of one grey image."""
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def test_the_edge_of_a_dot_is_the_ring_around_it() -> None:
    """A dot's 3x3 neighbourhood lights up, and the dot itself goes out."""
    dot = [[0, 0, 0, 0], [0, 200, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    ring = [[200, 200, 200, 0], [200, 0, 200, 0], [200, 200, 200, 0], [0, 0, 0, 0]]
    assert torch.equal(transform(image(dot), "edge"), image(ring))


def test_the_border_of_an_image_is_no_edge() -> None:
    """Nothing lies beyond the border: a white image has no edges, and a corner's ring is cut off."""
    white = torch.full((1, 1, 3, 3), 255, dtype=torch.uint8)
    assert not transform(white, "edge").any()
    corner = transform(image([[9, 0, 0], [0, 0, 0], [0, 0, 0]]), "edge")
    assert torch.equal(corner, image([[0, 9, 0], [9, 9, 0], [0, 0, 0]]))


def test_an_edge_is_dilation_minus_image() -> None:
    """Every pixel is the greatest of its neighbourhood less itself, as a slow loop finds it."""
    images = torch.randint(256, (3, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    edges = transform(images, "edge")
    for y in range(6):
        for x in range(5):
            near = images[:, :, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].amax((2, 3))
            assert torch.equal(edges[:, :, y, x], near - images[:, :, y, x])


def test_a_negative_is_255_minus_image() -> None:
    """Black becomes white, and twice the negative is the image."""
    images = image([[0, 1], [100, 255]])
    negatives = transform(images, "negative")
    assert torch.equal(negatives, image([[255, 254], [155, 0]]))
    assert torch.equal(transform(negatives, "negative"), images)


def test_a_rotation_is_a_quarter_turn_to_the_left() -> None:
    """The right column becomes the upper row, and four turns are none."""
    images = image([[1, 2], [3, 4]])
    turned = transform(images, "rotate")
    assert torch.equal(turned, image([[2, 4], [1, 3]]))
    for _ in range(3):
        turned = transform(turned, "rotate")
    assert torch.equal(turned, images)


def test_the_identity_changes_nothing() -> None:
    """The image itself is a domain too."""
    images = image([[0, 7], [255, 3]])
    assert torch.equal(transform(images, "identity"), images)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_works_in_any_batches(name: str) -> None:
    """A batch at a time gives bytes of the same shape as all at once."""
    images = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    whole, parts = transform(images, name), transform(images, name, batch=2)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, parts)
