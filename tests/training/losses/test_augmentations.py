"""What augmentations make of images, and what gradients they let through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.losses.pixels import AUGMENTATIONS


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


def test_an_affine_view_is_near_the_image() -> None:
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


def test_an_elastic_view_moves_neighbours_alike() -> None:
    """Of an image of places it shows where each was taken from: near, and hardly apart from its neighbour."""
    places = torch.arange(28.0).expand(400, 1, 28, 28)
    moves = (altered("elastic", places) - places)[:, 0, 6:-6, 6:-6]  # a border repeats its own place
    assert 0.6 < moves.std() < 1.3  # knots are moved by 0.08 of 14 pixels, between them less
    assert abs(moves.mean()) < 0.1
    assert moves.diff(dim=2).std() < 0.4 * moves.std()
    assert not torch.equal(moves[0], moves[1])
