"""Latents: from seeds, and between two latents. The only place that defines them.

Axes: Z latent dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.metadata import Direction, Prior

MAX_SEED = 2**53 - 1  # exact in every JSON reader
MAX_INDEX = 2**32 - 1  # one word of a spawn key
MIN_TRUNCATION = 0.1  # below this nearly every normal draw would be redrawn

Latent = NDArray[np.float32]
Method = Literal["slerp", "lerp"]


def draw_latent(prior: Prior, seed: int, index: int = 0, truncation: float | None = None) -> Latent:
    """Return the latent of image `index` of `seed` (at most MAX_SEED): float32 [Z].

    It is the same in every batch, process and release. `truncation` confines every value to [-truncation,
    truncation]: a normal prior redraws the values outside it (the truncation trick of Brock et al. 2019,
    section 3.1), a uniform one is scaled.
    """
    # Four words of the seed and one of a spawn key, as SeedSequence(seed, spawn_key=(index,)) puts together
    # more slowly; without the zeros, (5, 3) would equal (5 + 3 * 2**32, 0).
    words = np.array((seed & 0xFFFFFFFF, seed >> 32, 0, 0, index), np.uint32)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
    if prior.distribution == "uniform":
        scale = 1.0 if truncation is None else min(truncation, 1.0)
        return generator.uniform(-scale, scale, prior.latent_dim).astype(np.float32)
    latent = generator.standard_normal(prior.latent_dim)
    if truncation is not None:
        while (outside := np.abs(latent) > truncation).any():
            latent[outside] = generator.standard_normal(int(outside.sum()))
    return latent.astype(np.float32)


def displacement(steps: Iterable[tuple[Direction, float]]) -> NDArray[np.float64]:
    """Return the sum of steps along directions, each in spreads of the prior: float64 [Z]."""
    total: NDArray[np.float64] = np.sum([value * one.spread * np.array(one.vector) for one, value in steps], axis=0)
    return total


def move(latent: Latent, by: NDArray[np.float64]) -> Latent:
    """Return a latent moved by a displacement: float32 [Z]."""
    moved: Latent = (latent + by).astype(np.float32)
    return moved


def default_method(prior: Prior) -> Method:
    """Spherical for a normal prior, whose mass lies near a sphere; linear for a uniform one."""
    return "slerp" if prior.distribution == "normal" else "lerp"


def interpolate(start: Latent, end: Latent, t: float, method: Method) -> Latent:
    """Return the latent [Z] at `t` in [0, 1] between two; the end points are returned as they are.

    Spherical interpolation is Shoemake's (1985) between the directions; parallel or zero latents,
    which span no arc, are joined by a straight line.
    """
    if t == 0.0:
        return start
    if t == 1.0:
        return end
    a, b = start.astype(np.float64), end.astype(np.float64)
    weight_a, weight_b = 1.0 - t, t
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if method == "slerp" and norms > 0.0:
        angle = float(np.arccos(np.clip(a @ b / norms, -1.0, 1.0)))
        if np.sin(angle) > 1e-6:
            weight_a = float(np.sin((1.0 - t) * angle) / np.sin(angle))
            weight_b = float(np.sin(t * angle) / np.sin(angle))
    mixed: Latent = (weight_a * a + weight_b * b).astype(np.float32)
    return mixed
