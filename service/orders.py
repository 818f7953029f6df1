"""An order: all that decides the bytes of an answer, in one normal form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.images import ENCODER_ID
from service.latents import Latent, Method, draw_latent, path
from service.metadata import Prior
from service.onnx_model import OnnxModel


@dataclass(frozen=True)
class Source:
    """Where one latent comes from: image `index` of `seed`, or else `values` [Z], the `index`-th given."""

    index: int
    seed: int | None = None
    values: tuple[float, ...] | None = None

    def latent(self, prior: Prior, truncation: float | None) -> Latent:
        """Return the latent: float32 [Z]."""
        if self.seed is None:
            return np.array(self.values, np.float32)
        return draw_latent(prior, self.seed, self.index, truncation)


@dataclass(frozen=True)
class Walk:
    """A way through latents: `steps` frames from one to the next, both counted."""

    steps: int
    method: Method
    loop: bool

    def frames(self, keyframes: int) -> int:
        """Count the frames of a way through so many key frames."""
        return (self.steps - 1) * keyframes if self.loop else (self.steps - 1) * (keyframes - 1) + 1


@dataclass(frozen=True)
class Order:
    """Images of these domains of these latents, or along a walk through them, in this format.

    It holds the model itself: whatever is loaded meanwhile, this one draws it.
    """

    model: OnnxModel
    domains: tuple[str, ...]
    sources: tuple[Source, ...]
    truncation: float | None
    walk: Walk | None
    format: str

    @property
    def size(self) -> int:
        """Count the latents to draw."""
        return self.walk.frames(len(self.sources)) if self.walk else len(self.sources)

    @cached_property
    def key(self) -> str:
        """Name the answer's bytes: equal orders, models and encoders have equal keys."""
        return hashlib.sha256(f"{ENCODER_ID} {self!r}".encode()).hexdigest()[:32]

    def latents(self, prior: Prior) -> list[tuple[float, Latent]]:
        """Return (t, latent [Z]) of every image; t counts key frames along a walk, and images otherwise."""
        latents = [source.latent(prior, self.truncation) for source in self.sources]
        if self.walk is None:
            return [(float(i), latent) for i, latent in enumerate(latents)]
        return path(latents, self.walk.steps, self.walk.method, self.walk.loop)
