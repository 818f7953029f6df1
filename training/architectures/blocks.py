"""Rows that tables of several families have in common."""

from __future__ import annotations

from dataclasses import replace

from training.architectures.layers import Layer


def narrowing(first: int, *others: int) -> tuple[Layer, ...]:
    """Make Soft-CoGAN's plain reader: 3x3 convolutions, all but the first of which halve the sides."""
    rows = [Layer("conv", first, 3, 1, 1, activation="leaky_relu")]
    rows += [Layer("conv", out, 3, 2, 1, activation="leaky_relu") for out in others]
    return (*rows[:-1], replace(rows[-1], dropout=0.4))
