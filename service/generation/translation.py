"""The counterparts of a given image: its latent, found by encoders, and the images of that latent.

An encoder's pass is repeated, from zeros (ReStyle: Alaluf et al. 2021, section 3.1). Axes: B batch, Z latent, H, W, C.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from service.engine.batcher import Encoding, Job
from service.engine.models import ModelRegistry
from service.engine.onnx_model import Arrays, OnnxModel, take
from service.errors import FieldError, InvalidRequest
from service.generation.decoding import Fit, Fitting, ImageDecoder
from service.generation.encoding import PAIR_FORMATS
from service.generation.images import Pixels
from service.generation.pairs import GeneratedImages, companions, dump, keep_all
from service.generation.spec import GenerationSpec, LatentSpec
from service.latents import Latent
from service.metadata import LATENT, PREVIOUS
from service.telemetry.metrics import Metrics

MAX_REFINE = 15  # passes after the first
Likeness = Literal["typical", "unusual", "unlike"]
LIKENESS: Mapping[str, Likeness] = {"0.9": "typical", "0.99": "unusual"}  # up to that quantile of test images' errors
Found = dict[str, Any]  # of an image, as JSON


class MeasuredError(BaseModel):
    """Reconstruction errors of real test images, in levels of 0 to 255."""

    mean: float
    quantiles: dict[str, float]
    """At 0.5, 0.9 and 0.99."""


class EncoderQuality(BaseModel):
    """The quality in an encoder's metadata; without it, one pass and no calibration."""

    passes: int = Field(default=1, ge=1)
    error: MeasuredError | None = None

    @classmethod
    def of(cls, encoder: OnnxModel) -> EncoderQuality:
        """Return the quality of an encoder."""
        try:
            return cls.model_validate(encoder.metadata.quality)
        except ValidationError:
            return cls()

    def likeness(self, error: float) -> Likeness | None:
        """Return whether an error is like those of real test images; None if these were not measured."""
        if self.error is None:
            return None
        known = self.error.quantiles
        return next((word for at, word in LIKENESS.items() if error <= known.get(at, 0.0)), "unlike")

    def relative(self, error: float) -> float:
        """Return an error in medians of those of real test images, so that those of two domains compare."""
        median = self.error.quantiles.get("0.5", 0.0) if self.error is not None else 0.0
        return error / median if median > 0.0 else error


class _TrainedFit(BaseModel):
    """A domain of a recipe: how its images were fitted."""

    name: str
    margin: int = Field(default=0, ge=0, le=4096)
    crop: float | None = Field(default=None, gt=0, le=1)


RECIPE = TypeAdapter(list[_TrainedFit])


@dataclass(frozen=True)
class TranslationSpec:
    """Encoders of an image by the domain that it may be of, and the spec of its counterparts, without a latent yet."""

    spec: GenerationSpec
    encoders: Mapping[str, OnnxModel]
    refine: int | None
    fit: Fit | None
    invert: bool = False

    @property
    def fittings(self) -> list[Fitting]:
        """The fitting of each domain: that of its training images, unless `fit` is given."""
        try:
            recipe = RECIPE.validate_python(self.spec.model.metadata.provenance.experiment.get("domains", []))
        except ValidationError:
            recipe = []
        known, fittings = {one.name: one for one in recipe}, list[Fitting]()
        for name in self.encoders:
            trained = known.get(name, _TrainedFit(name=name))
            crop = 1.0 if self.fit == "crop" else trained.crop
            pad = self.fit == "pad"
            fittings.append(Fitting(self.spec.model.shapes[name], trained.margin, crop, pad, self.invert))
        return fittings


class Translator:
    """Translates images with the encoders that are served."""

    def __init__(self, registry: ModelRegistry, decoder: ImageDecoder, metrics: Metrics, bound: float) -> None:
        """`bound` is the largest absolute value in a latent that requests may send."""
        self._registry, self._decoder, self._bound, self._metrics = registry, decoder, bound, metrics

    def encoders(self, generator: OnnxModel, source: str | None, place: str) -> dict[str, OnnxModel]:
        """Return the encoders of a generator by domain, or that of domain `source`. Raises InvalidRequest."""
        models = self._registry.models
        if not (known := companions("encoder", generator, models)):
            generators = [one.name for one in self._registry.generators if companions("encoder", one, models)]
            wrong = FieldError("/model", generator.name, generators, place)
            having = f"those that have one are {', '.join(generators) or 'none'}"
            raise InvalidRequest(f"no served encoder goes with model '{generator.name}'; {having}", [wrong])
        if source is not None and source not in known:
            wrong = FieldError("/from", source, list(known), place)
            having = f"model '{generator.name}' has encoders of {', '.join(known)}"
            raise InvalidRequest(f"no images of domain {source!r:.80} are read; {having}", [wrong])
        return known if source is None else {source: known[source]}

    async def translate(
        self, wanted: TranslationSpec, file: bytes, deadline: float
    ) -> tuple[bytes, Found, Mapping[str, float]]:
        """Return an image's encoded counterparts, what was found of it, and the seconds of each stage.

        Raises what ImageDecoder.decode and Batcher.submit raise, and InvalidRequest for an image of one level.
        """
        images, decode_s = await self._decoder.decode(file, wanted.fittings, deadline)
        if any(image.min() == image.max() for image in images):  # which models find typical, and draw something for
            wrong = FieldError("/image", f"level {images[0].max()} everywhere", "a picture of something")
            why = "dark ink on a transparent ground is seen with invert=true"
            raise InvalidRequest(f"the image is of one level everywhere; {why}", [wrong])
        seconds = Counter[str]({"decode": decode_s})
        passes = zip(wanted.encoders.values(), images, strict=True)
        latents = await asyncio.gather(
            *(self._encode(encoder, image, wanted.refine, deadline, seconds) for encoder, image in passes)
        )
        rows, model = {LATENT: np.stack(latents)}, wanted.spec.model
        encode = partial(self._answer, wanted, images)
        encode_s = PAIR_FORMATS[wanted.spec.format].seconds(wanted.spec)
        job = Job(model, len(images), partial(take, rows), encode, encode_s)
        (body, found), spent = await self._registry.batcher(model.name).submit(job, deadline)
        seconds.update(spent)
        return body, found, seconds

    async def _encode(
        self, encoder: OnnxModel, image: Pixels, refine: int | None, deadline: float, seconds: Counter[str]
    ) -> Latent:
        """Return the latent [Z] after an encoder's passes, and add what they took."""
        latent: Latent = np.zeros(encoder.prior.latent_dim, np.float32)
        for _ in range(EncoderQuality.of(encoder).passes if refine is None else 1 + refine):
            rows: Arrays = {encoder.domains[0]: image[np.newaxis], PREVIOUS: latent[np.newaxis]}
            job = Job(encoder, 1, partial(take, rows), keep_all, 0.0)
            (_, outputs), spent = await self._registry.batcher(encoder.name).submit(job, deadline)
            latent = outputs[LATENT][0].clip(-self._bound, self._bound)
            seconds.update(spent)
        return latent

    def _answer(
        self, wanted: TranslationSpec, images: Sequence[Pixels], inputs: Arrays, outputs: Arrays
    ) -> Encoding[tuple[bytes, Found]]:
        """Encode the images of the latent that reconstructs the image best; return them with what was found."""
        errors = dict[str, float]()  # root mean squared differences, in levels of 0 to 255
        for i, (name, image) in enumerate(zip(wanted.encoders, images, strict=True)):
            errors[name] = float(np.sqrt(np.square(image.astype(np.float64) - outputs[name][i]).mean()))
        qualities = {name: EncoderQuality.of(encoder) for name, encoder in wanted.encoders.items()}
        source = min(errors, key=lambda name: qualities[name].relative(errors[name]))
        row = list(errors).index(source)
        own, latent = take(inputs, row, row + 1), inputs[LATENT][row].tolist()
        spec = replace(wanted.spec, latents=(LatentSpec(0, values=tuple(latent)),))
        generated = {name: outputs[name][row : row + 1] for name in spec.domains}
        encoding = PAIR_FORMATS[spec.format].encode(GeneratedImages(spec, own, generated))
        body = yield from self._metrics.timed(spec.format, encoding)
        encoder, quality = wanted.encoders[source], qualities[source]
        found = {
            "from": source,
            "encoder": {"model": encoder.name, "version": encoder.version, "digest": encoder.digest},
            "latent": latent,
            "error": errors[source],
            "likeness": quality.likeness(errors[source]),
            "errors": errors,
            "test_error": quality.model_dump()["error"],
        }
        if spec.format == "json":
            body = body[:-1] + b"," + dump(found).encode()[1:]
        return body, found
