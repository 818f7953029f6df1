"""An order: all that decides the bytes of an answer, in one normal form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.engine.onnx_model import Latents, OnnxModel
from service.generation.images import ENCODER_ID
from service.latents import Latent, Method, draw_latent, interpolate
from service.metadata import Prior


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

    def position(self, frame: int) -> tuple[int, float]:
        """Return the key frame that a frame follows, and how far it is on the way to the next, in [0, 1)."""
        keyframe, step = divmod(frame, self.steps - 1)
        return keyframe, step / (self.steps - 1)


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
        """Name the answer's bytes: equal orders, models, engines and encoders have equal keys."""
        sources = [(source.index, source.seed, source.values) for source in self.sources]
        what = (self.model.digest, self.domains, sources, self.truncation, self.walk, self.format)
        makers = f"{self.model.engine} {ENCODER_ID}"
        return hashlib.sha256(f"{makers} {what!r}".encode()).hexdigest()[:32]

    def latents(self, start: int, stop: int) -> Latents:
        """Return the latents of images `start` to `stop`: float32 [B, Z]."""
        if self.walk is None:
            return np.array([self._latent(source) for source in self.sources[start:stop]])
        return np.array([self._frame(self.walk, i) for i in range(start, stop)])

    def _latent(self, source: Source) -> Latent:
        return source.latent(self.model.metadata.prior, self.truncation)

    @cached_property
    def _keyframes(self) -> list[Latent]:
        return [self._latent(source) for source in self.sources]

    def _frame(self, walk: Walk, frame: int) -> Latent:
        at, t = walk.position(frame)
        following = self._keyframes[(at + 1) % len(self._keyframes)]
        return interpolate(self._keyframes[at], following, t, walk.method)
