"""Seeds become latents in one way for ever."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.latents import MAX_INDEX, MAX_SEED, default_method, draw_latent, interpolate
from service.metadata import Prior

NORMAL = Prior(distribution="normal", latent_dim=4)
UNIFORM = Prior(distribution="uniform", latent_dim=4)

GOLDEN = [
    (NORMAL, 7, 0, None, (-0.63006794, 1.4650847, -0.43929264, 2.1363573)),
    (NORMAL, 7, 1, None, (1.4019101, 0.8534203, 3.0563023, -0.057023514)),
    (NORMAL, 7, 0, 0.5, (0.4527542, 0.24746017, -0.43929264, 0.28846127)),
    (NORMAL, MAX_SEED, 0, None, (0.07638452, -0.9383975, 1.0784471, 0.3189483)),
    (UNIFORM, 7, 0, None, (0.5957184, -0.89381224, 0.18270223, 0.7376503)),
    (UNIFORM, 7, 0, 0.5, (0.2978592, -0.44690612, 0.091351114, 0.36882514)),
]


@pytest.mark.parametrize(("prior", "seed", "index", "truncation", "expected"), GOLDEN)
def test_latents_are_golden(
    prior: Prior, seed: int, index: int, truncation: float | None, expected: tuple[float, ...]
) -> None:
    """These values never change: a seed is the same image in every release."""
    assert np.array_equal(draw_latent(prior, seed, index, truncation), np.array(expected, np.float32))


@settings(deadline=None)  # a busy machine may halt it
@given(st.integers(0, MAX_SEED), st.integers(0, MAX_INDEX))
def test_an_index_is_a_spawn_key(seed: int, index: int) -> None:
    """A latent is what numpy draws from the child `index` of a seed."""
    child = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    expected = child.standard_normal(NORMAL.latent_dim).astype(np.float32)
    assert np.array_equal(draw_latent(NORMAL, seed, index), expected)


def test_seed_and_index_do_not_mix() -> None:
    """A large seed is not a small one with another index."""
    assert not np.array_equal(draw_latent(NORMAL, 5, 3), draw_latent(NORMAL, 5 + 3 * 2**32, 0))


def test_largest_seed_and_index_are_drawn() -> None:
    """The limits themselves are allowed, and give finite float32 values."""
    latent = draw_latent(NORMAL, MAX_SEED, MAX_INDEX)
    assert latent.dtype == np.float32
    assert np.isfinite(latent).all()


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_truncation_bounds_every_value(distribution: Literal["normal", "uniform"]) -> None:
    """No value lies outside the truncation, which changes only what lay outside for a normal prior."""
    prior = Prior(distribution=distribution, latent_dim=512)
    assert np.abs(draw_latent(prior, 1, 0, 0.5)).max() <= 0.5


def test_truncation_keeps_what_lies_inside() -> None:
    """A normal prior's values inside the bound are those of the seed without a bound."""
    prior = Prior(distribution="normal", latent_dim=512)
    free, bound = draw_latent(prior, 1), draw_latent(prior, 1, 0, 1.0)
    inside = np.abs(free) <= 1.0
    assert np.array_equal(free[inside], bound[inside])


def test_default_method_follows_the_prior() -> None:
    """A normal prior is walked on its sphere, a uniform one straight."""
    assert (default_method(NORMAL), default_method(UNIFORM)) == ("slerp", "lerp")


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_end_points_are_exact(method: Literal["slerp", "lerp"]) -> None:
    """A way begins and ends with the key frames' own values."""
    start, end = draw_latent(NORMAL, 1), draw_latent(NORMAL, 2)
    assert interpolate(start, end, 0.0, method) is start
    assert interpolate(start, end, 1.0, method) is end


def test_slerp_keeps_the_norm_and_lerp_does_not() -> None:
    """Between vectors of one length, the spherical way keeps the length, the straight one cuts the corner."""
    start, end = np.array([2, 0], np.float32), np.array([0, 2], np.float32)
    assert np.linalg.norm(interpolate(start, end, 0.5, "slerp")) == pytest.approx(2)
    assert np.linalg.norm(interpolate(start, end, 0.5, "lerp")) == pytest.approx(2**0.5)


@pytest.mark.parametrize("end", [[0, 0], [2, 0], [-2, 0]])
def test_slerp_without_an_arc_is_finite(end: list[float]) -> None:
    """Zero and parallel latents are joined by a straight line instead of a division by zero."""
    middle = interpolate(np.array([1, 0], np.float32), np.array(end, np.float32), 0.5, "slerp")
    assert np.isfinite(middle).all()
