"""Specification of a request: one normal form that determines every byte of its response."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.onnx_model import Arrays, OnnxModel
from service.generation.images import ENCODER_ID
from service.latents import Latent, Method, displacement, draw_latent, interpolate, move
from service.metadata import LATENT, Domain, Prior


@dataclass(frozen=True)
class LatentSpec:
    """Source of one latent: image `index` of `seed`, or else `values` [Z], the `index`-th given."""

    index: int
    seed: int | None = None
    values: tuple[float, ...] | None = None

    def latent(self, prior: Prior, truncation: float | None) -> Latent:
        """Return the latent: float32 [Z]."""
        if self.seed is None:
            return np.array(self.values, np.float32)
        return draw_latent(prior, self.seed, self.index, truncation)


@dataclass(frozen=True)
class InterpolationPath:
    """A path through key frames: `steps` frames from one to the next, both counted."""

    steps: int
    method: Method
    loop: bool

    def frames(self, keyframes: int) -> int:
        """Return the number of frames of a path through so many key frames."""
        return (self.steps - 1) * keyframes if self.loop else (self.steps - 1) * (keyframes - 1) + 1

    def position(self, frame: int) -> tuple[int, float]:
        """Return the key frame before a frame, and the fraction of the way to the next, in [0, 1)."""
        keyframe, step = divmod(frame, self.steps - 1)
        return keyframe, step / (self.steps - 1)


@dataclass(frozen=True)
class Filters:
    """Conditions on the labels of a seed's candidates."""

    class_name: str | None = None  # of the first domain that has a classifier
    min_confidence: float = 0.0  # in every domain that has one
    agree: bool = False  # whether their classes have to be equal

    def __bool__(self) -> bool:
        return self != Filters()

    @property
    def given(self) -> dict[str, Any]:
        """Those that are set, as fields of a request."""
        fields = {"class": self.class_name, "min_confidence": self.min_confidence, "agree": self.agree}
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True)
class GenerationSpec:
    """Images of these domains, of these latents or along a path through them, in this format.

    It holds the models themselves: whatever is loaded meanwhile, these ones compute the images and their labels. With
    filters each latent is a seed's first candidate, and the first `count` candidates of every seed that pass are taken.
    """

    model: OnnxModel
    domains: tuple[str, ...]
    latents: tuple[LatentSpec, ...]
    truncation: float | None = None
    path: InterpolationPath | None = None
    format: str = "json"
    directions: tuple[tuple[int, float], ...] = ()  # number of each from 0, in order, and spreads to move along it
    count: int = 1
    labels: bool = False
    filters: Filters | None = None
    classifiers: tuple[OnnxModel, ...] = ()  # of the domains that have one, in their order
    scale: int = 1  # side of the square that a pixel becomes, in a picture

    @property
    def size(self) -> int:
        """Number of pairs or frames."""
        return self.path.frames(len(self.latents)) if self.path else len(self.latents) * self.count

    @cached_property
    def shapes(self) -> list[Domain]:
        """The requested domains, with their sizes before they are scaled, in the order requested."""
        return [self.model.shapes[name] for name in self.domains]

    @property
    def pixels(self) -> int:
        """Pixels of the response, all images together."""
        return self.size * self.scale**2 * sum(domain.height * domain.width for domain in self.shapes)

    @cached_property
    def key(self) -> str:
        """Identifier of the response's bytes: equal specs, models, engines and encoders have equal keys."""
        latents = [(one.index, one.seed, one.values) for one in self.latents]
        what: tuple[object, ...] = (
            *(self.model.digest, self.domains, latents, self.truncation, self.path, self.format, self.directions),
            *(self.labels, self.filters, self.count, tuple(one.digest for one in self.classifiers), self.scale),
        )
        return hashlib.sha256(f"{self.model.engine} {ENCODER_ID} {what!r}".encode()).hexdigest()[:32]

    def inputs(self, start: int, stop: int) -> Arrays:
        """Return the model's input for images `start` to `stop`: `latent`, float32 [B, Z]."""
        if self.path is None:
            rows = [one.latent(self.model.prior, self.truncation) for one in self.latents[start:stop]]
        else:
            rows = [self._frame(self.path, i) for i in range(start, stop)]
        if self._displacement is not None:
            rows = [move(row, self._displacement) for row in rows]
        return {LATENT: np.array(rows)}

    @cached_property
    def _displacement(self) -> NDArray[np.float64] | None:
        known = self.model.metadata.directions
        return displacement((known[i], value) for i, value in self.directions) if self.directions else None

    @cached_property
    def _keyframes(self) -> list[Latent]:
        return [one.latent(self.model.prior, self.truncation) for one in self.latents]

    def _frame(self, path: InterpolationPath, frame: int) -> Latent:
        at, t = path.position(frame)
        following = self._keyframes[(at + 1) % len(self._keyframes)]
        return interpolate(self._keyframes[at], following, t, path.method)
