"""Augmentations, transforms and ranges of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.losses.pixels import AUGMENTATIONS, TRANSFORMS, from_bytes, to_bytes, transform


def altered(name: str, images: Tensor) -> Tensor:
    """Alter images, always by the same draws."""
    torch.manual_seed(3)
    return AUGMENTATIONS[name](images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_go_through(name: str, channels: int) -> None:
    """The shape stays, not all images are altered alike, and the slope is what a small step measures."""
    images = torch.rand(8, 12, dtype=torch.float64).expand(12, channels, -1, -1).clone().requires_grad_()
    result = altered(name, images)
    assert result.shape == images.shape
    assert len({tuple(one.flatten().tolist()) for one in result}) > 1
    direction = torch.randn_like(images)
    (slope,) = torch.autograd.grad((result * direction).sum(), images)
    moved = altered(name, (images + 1e-6 * slope).detach())
    measured = ((moved - result) * direction).sum() / 1e-6
    torch.testing.assert_close(measured, slope.square().sum(), rtol=1e-4, atol=0.0)


def test_a_translation_is_a_shift() -> None:
    """A dot is moved by at most an eighth of each side, or beyond the border, and its value stays."""
    images = torch.zeros(200, 1, 16, 24)
    images[:, :, 8, 12] = 5.0
    places = altered("translation", images)[:, 0].nonzero()
    assert len(places) == 200
    assert set(places[:, 1].tolist()) == set(range(8 - 2, 8 + 3))
    assert set(places[:, 2].tolist()) == set(range(12 - 3, 12 + 4))
    assert altered("translation", images).max() == 5.0
    corner = torch.zeros(200, 1, 16, 24)
    corner[:, :, 0, 0] = 5.0
    assert 0 < len(altered("translation", corner).nonzero()) < 200  # what leaves does not come in again


def test_a_cutout_is_a_hole_of_half_the_sides() -> None:
    """One rectangle of 8x12 is cut out, less where it lies over the border, and the rest stays."""
    holes = altered("cutout", torch.ones(300, 3, 16, 24)) == 0
    assert torch.equal(holes, holes[:, :1].expand_as(holes))
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)
    assert set(rows.tolist()) == set(range(4, 9))
    assert set(columns.tolist()) == set(range(6, 13))


def test_a_flip_is_a_mirror_image_of_half_the_images() -> None:
    """Left and right change places in about every other image, and nothing else changes."""
    images = torch.rand(400, 3, 4, 5)
    flipped = altered("flip", images)
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 160 < int(mirrored.sum()) < 240


def test_colors_change_all_pixels_alike() -> None:
    """One grey value becomes another one; contrast and saturation keep the mean that brightness gave."""
    flat = altered("color", torch.full((50, 3, 4, 4), 0.25))
    torch.testing.assert_close(flat, flat[:, :1, :1, :1].expand_as(flat))
    assert -0.25 <= flat.min() < 0.0 < 0.5 < flat.max() <= 0.75
    grey = torch.rand(50, 1, 4, 4).expand(-1, 3, -1, -1)
    result = altered("color", grey)
    torch.testing.assert_close(result, result[:, :1].expand_as(result))  # no colours of nothing
    torch.testing.assert_close(result.mean((1, 2, 3)) - grey.mean((1, 2, 3)), flat.mean((1, 2, 3)) - 0.25)


def test_an_affine_augmentation_is_near_the_image() -> None:
    """A disc is moved by at most a fourteenth of each side and grows by at most a third; flat stays flat."""
    flat = torch.full((20, 3, 16, 24), 0.25)
    torch.testing.assert_close(altered("affine", flat), flat)
    rows, columns = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    disc = (rows**2 + columns**2 < 36).float().expand(300, 1, -1, -1)
    result = altered("affine", disc)
    sizes = result.sum((1, 2, 3)) / disc.sum((1, 2, 3))
    assert 0.75 < sizes.min() < 0.9 < 1.1 < sizes.max() < 1.34
    for places in (rows, columns):
        moved = (result[:, 0] * places).sum((1, 2)) / result.sum((1, 2, 3))
        assert 1.5 < moved.abs().max() < 2.6  # two pixels, turned, scaled and sheared with the rest


def test_an_elastic_augmentation_moves_neighbours_alike() -> None:
    """Of an image of places it shows where each was taken from: near, and hardly apart from its neighbour."""
    places = torch.arange(28.0).expand(400, 1, 28, 28)
    moves = (altered("elastic", places) - places)[:, 0, 6:-6, 6:-6]  # a border repeats its own place
    assert 0.6 < moves.std() < 1.3  # knots are moved by 0.08 of 14 pixels, between them less
    assert abs(moves.mean()) < 0.1
    assert moves.diff(dim=2).std() < 0.4 * moves.std()
    assert not torch.equal(moves[0], moves[1])


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


@pytest.mark.parametrize("image_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_bytes_survive_the_networks_range(image_range: tuple[float, float]) -> None:
    """Every level goes to the network's range and back, and its ends are black and white."""
    levels = torch.arange(256, dtype=torch.uint8)
    values = from_bytes(levels, image_range)
    assert (float(values[0]), float(values[-1])) == pytest.approx(image_range)
    assert torch.equal(to_bytes(values, image_range), levels)


def test_values_beyond_the_range_are_cut_off() -> None:
    """A byte is the nearest level, never one that wrapped around."""
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert to_bytes(values, (-1.0, 1.0)).tolist() == [0, 0, 128, 255, 255]
