"""Coupled images of a spec: checked before work starts, computed by the model's batcher, encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial

from service.engine.models import ModelRegistry
from service.engine.onnx_model import Arrays, OnnxModel
from service.engine.request import Job
from service.errors import FieldError, InvalidRequest, TooLarge
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS, Format, GeneratedImages
from service.generation.images import Encoding
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.telemetry.metrics import Metrics

Seconds = Mapping[str, float]  # of each stage of the work


class Generator:
    """Makes specs and responses with the models that are served."""

    def __init__(self, registry: ModelRegistry, max_pixels: int, metrics: Metrics) -> None:
        self._registry, self._max_pixels = registry, max_pixels
        self._encode_durations = cache(metrics.encode_duration.labels)

    def model(self, name: str | None, place: str) -> OnnxModel:
        """Return the generator of this name, or the default one. Raises UnknownModel and NotReady."""
        return self._registry.generator(name, place)

    def spec(
        self,
        model: OnnxModel,
        *,
        domains: Sequence[str] | None,
        latents: Sequence[LatentSpec],
        truncation: float | None,
        path: InterpolationPath | None,
        format_: str,
        place: str,
    ) -> GenerationSpec:
        """Return the normal form of a request; `place` is where its fields are.

        Raises InvalidRequest for a domain or latent that does not fit, and TooLarge for too many pixels.
        """
        _check_latents(model, latents, "/latents/{}" if path is None else "/keyframes/{}/latent")
        chosen = _check_domains(model, domains, place)
        spec = GenerationSpec(model, chosen, tuple(latents), truncation, path, format_)
        self._check_size(spec, place)
        return spec

    async def generate(self, spec: GenerationSpec, deadline: float) -> tuple[bytes, Seconds]:
        """Return the encoded images and the seconds of each stage. Raises what Batcher.submit raises."""
        form = formats(spec)[spec.format]
        job = Job(spec.model, spec.size, spec.inputs, partial(self._encode, spec, form), form.seconds(spec))
        return await self._registry.batcher(spec.model.name).submit(job, deadline)

    def _encode(self, spec: GenerationSpec, form: Format, inputs: Arrays, outputs: Arrays) -> Encoding:
        images = {name: outputs[name] for name in spec.domains}
        with self._encode_durations(spec.format).time():
            return (yield from form.encode(GeneratedImages(spec, inputs, images)))

    def _check_size(self, spec: GenerationSpec, place: str) -> None:
        """Check that a format has room for the images, and that they cost no more than the limit."""
        known = formats(spec)
        form, rows = known[spec.format], 1 if spec.path is not None else spec.size
        height = rows * max(domain.height for domain in spec.shapes)
        side, pixels = max(height, sum(domain.width for domain in spec.shapes)), spec.pixels

        def fits(one: Format) -> bool:
            return side <= one.max_side and pixels * one.weight <= self._max_pixels

        if fits(form):
            return
        fitting = [name for name, one in known.items() if fits(one)]
        if side > form.max_side:
            detail = f"{spec.format} has at most {form.max_side} pixels a side, and this would have {side}"
        else:
            weight = f", each of which counts as {form.weight} in {spec.format}" if form.weight > 1 else ""
            detail = f"a response has at most {self._max_pixels} pixels; this would have {pixels}{weight}"
        remedy = f"or another format ({', '.join(fitting)})" if fitting else "or fewer domains"
        wrong = FieldError("/format", spec.format, fitting or "fewer images", place)
        raise TooLarge(f"{detail}; request fewer images at once, {remedy}", [wrong])


def formats(spec: GenerationSpec) -> Mapping[str, Format]:
    """Return the formats by name: those of interpolations or of pairs."""
    return FRAME_FORMATS if spec.path is not None else PAIR_FORMATS


def _check_domains(model: OnnxModel, domains: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Return the domains to generate: all, or those requested, each known and named once."""
    requested = tuple(domains) if domains is not None else model.domains
    wrong = [
        FieldError(f"/domains/{i}", name, list(model.domains), place)
        for i, name in enumerate(requested[: len(model.domains) + 1])  # of more, one is wrong by then
        if name not in model.domains or name in requested[:i]
    ]
    if wrong:
        known = ", ".join(model.domains)
        raise InvalidRequest(f"the domains of model '{model.name}' are {known}, each at most once", wrong)
    return requested


def _check_latents(model: OnnxModel, latents: Sequence[LatentSpec], pointer: str) -> None:
    size = model.prior.latent_dim
    wrong = [
        FieldError(pointer.format(i), f"{len(one.values)} values", f"{size} values")
        for i, one in enumerate(latents)
        if one.values is not None and len(one.values) != size
    ]
    if wrong:
        raise InvalidRequest(f"a latent of model '{model.name}' has {size} values", wrong)
