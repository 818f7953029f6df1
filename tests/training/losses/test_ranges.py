"""The way between bytes and the range of a network."""

from __future__ import annotations

import pytest
import torch

from training.losses.pixels import from_bytes, to_bytes


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
