"""Coupled images of a spec: checked before work starts, computed by the model's batcher, encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from service.engine.batcher import Job
from service.engine.models import ModelRegistry
from service.engine.onnx_model import Arrays, OnnxModel
from service.errors import FieldError, InvalidRequest, TooLarge
from service.generation import pairs
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS, Format
from service.generation.images import Encoding
from service.generation.pairs import GeneratedImages, add_classifiers
from service.generation.spec import Filters, GenerationSpec, InterpolationPath, LatentSpec
from service.telemetry.metrics import Metrics

T = TypeVar("T")
Seconds = Mapping[str, float]  # of each stage of the work


class Generator:
    """Makes specs and responses with the models that are served."""

    def __init__(self, registry: ModelRegistry, max_pixels: int, metrics: Metrics) -> None:
        self._registry, self._max_pixels, self._metrics = registry, max_pixels, metrics

    def model(self, name: str | None, place: str) -> OnnxModel:
        """Return the generator of this name, or the default one. Raises UnknownModel and NotReady."""
        return self._registry.generator(name, place)

    def spec(
        self,
        model: OnnxModel,
        *,
        domains: Sequence[str] | None,
        latents: Sequence[LatentSpec],
        place: str,
        format_: str = "json",
        truncation: float | None = None,
        path: InterpolationPath | None = None,
        directions: Mapping[str, float] | None = None,
        labels: bool = False,
        filters: Filters | None = None,
        count: int = 1,
        scale: int = 1,
    ) -> GenerationSpec:
        """Return the normal form of a request; `place` is where its fields are.

        Raises InvalidRequest for a domain, latent, direction, filter or format that does not fit, and TooLarge for
        too many pixels.
        """
        _check_latents(model, latents, "/latents/{}" if path is None else "/keyframes/{}/latent")
        chosen, steps = check_domains(model, domains, place), check_directions(model, directions, place)
        options = (steps, count, labels, filters)
        spec = GenerationSpec(model, chosen, tuple(latents), truncation, path, format_, *options, scale=scale)
        if labels or filters:
            spec = add_classifiers(spec, self._registry.models, place)
        _check_format(spec, place)
        self._check_cost(spec, place)
        return spec

    async def generate(self, spec: GenerationSpec, deadline: float, place: str) -> tuple[bytes, Seconds]:
        """Return the encoded images and the seconds of each stage.

        Raises what Batcher.submit raises, and InvalidRequest if too few candidates pass the filters.
        """
        form = formats(spec)[spec.format]
        if spec.filters is None and not spec.labels:

            def encode(inputs: Arrays, outputs: Arrays) -> Encoding:
                generated = GeneratedImages(spec, inputs, {name: outputs[name] for name in spec.domains})
                return self._metrics.timed(spec.format, form.encode(generated))

            return await self._submit(Job(spec.model, spec.size, spec.inputs, encode, form.seconds(spec)), deadline)
        steps, seconds = pairs.generate(spec, place), Counter[str]()
        try:
            step = next(steps)
            while True:
                computed, spent = await self._submit(step, deadline)
                seconds.update(spent)
                step = steps.send(computed)
        except StopIteration as stop:
            timed = self._metrics.timed(spec.format, form.encode(stop.value))
        job = Job(spec.model, 0, spec.inputs, lambda *_: timed, form.seconds(spec))
        body, spent = await self._submit(job, deadline)
        seconds.update(spent)
        return body, seconds

    async def _submit(self, job: Job[T], deadline: float) -> tuple[T, Seconds]:
        return await self._registry.batcher(job.model.name).submit(job, deadline)

    def _check_cost(self, spec: GenerationSpec, place: str) -> None:
        """Check that the images fit their format, and that they cost no more than the limit."""
        known, rows = formats(spec), 1 if spec.path is not None else spec.size
        form, pixels = known[spec.format], spec.pixels
        height = rows * max(domain.height for domain in spec.shapes)
        side = spec.scale * max(height, sum(domain.width for domain in spec.shapes))

        def fits(one: Format) -> bool:
            return side <= one.max_side and pixels * one.weight <= self._max_pixels

        if fits(form):
            return
        fitting = [name for name, one in known.items() if fits(one) and (one.picture or spec.scale == 1)]
        if side > form.max_side:
            detail = f"{spec.format} has at most {form.max_side} pixels a side, and this would have {side}"
        else:
            weight = f", each of which counts as {form.weight} in {spec.format}" if form.weight > 1 else ""
            detail = f"a response has at most {self._max_pixels} pixels; this would have {pixels}{weight}"
        fewer = "fewer images at once" if spec.scale == 1 else "fewer images at once, or a smaller scale"
        remedy = f"or another format ({', '.join(fitting)})" if fitting else "or fewer domains"
        wrong = FieldError("/format", spec.format, fitting or "fewer images", place)
        raise TooLarge(f"{detail}; request {fewer}, {remedy}", [wrong])


def formats(spec: GenerationSpec) -> Mapping[str, Format]:
    """Return the formats by name: those of interpolations or of pairs."""
    return FRAME_FORMATS if spec.path is not None else PAIR_FORMATS


def _check_format(spec: GenerationSpec, place: str) -> None:
    """Check that the format has labels, if they are wanted, or pictures that can be scaled."""
    pictures = [name for name, one in formats(spec).items() if one.picture]
    others = [name for name in formats(spec) if name not in pictures]
    if spec.labels and spec.format in pictures:
        wrong = FieldError("/labels", True, f"false, or a format of {', '.join(others)}", place)
        raise InvalidRequest(f"{spec.format} has no room for labels; {', '.join(others)} have", [wrong])
    if spec.scale > 1 and spec.format in others:
        wrong = FieldError("/scale", spec.scale, f"1, or a format of {', '.join(pictures)}", place)
        raise InvalidRequest(f"{spec.format} has images as the model draws them; {', '.join(pictures)} scale", [wrong])


def check_domains(model: OnnxModel, domains: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Return the domains to generate: all, or those requested, each known and named once."""
    if domains is None:
        return model.domains
    requested = tuple(domains)
    wrong = [
        FieldError(f"/domains/{i}", name, list(model.domains), place)
        for i, name in enumerate(requested[: len(model.domains) + 1])  # of more, one is wrong by then
        if name not in model.domains or name in requested[:i]
    ]
    if wrong:
        known = ", ".join(model.domains)
        raise InvalidRequest(f"the domains of model '{model.name}' are {known}, each at most once", wrong)
    return requested


def check_directions(model: OnnxModel, given: Mapping[str, float] | None, place: str) -> tuple[tuple[int, float], ...]:
    """Return steps along directions by number, from 0; those of 0 spreads are left out, as they change nothing."""
    if not given:
        return ()
    known = {str(i + 1): i for i in range(len(model.metadata.directions))}
    names = {one.name: i for i, one in enumerate(model.metadata.directions) if one.name is not None}
    wrong, steps = list[FieldError](), dict[int, float]()
    for key, value in given.items():
        if (number := known.get(key, names.get(key))) is None or number in steps:
            wrong.append(FieldError("/directions", key, [*known, *names] if number is None else "once", place))
        else:
            steps[number] = value
    if wrong:
        allowed = f"are {', '.join([*known, *names])}, each at most once" if known else "are none: it has no directions"
        raise InvalidRequest(f"the directions of model '{model.name}' {allowed}", wrong)
    return tuple((number, value) for number, value in sorted(steps.items()) if value)


def _check_latents(model: OnnxModel, latents: Sequence[LatentSpec], pointer: str) -> None:
    size = model.prior.latent_dim
    wrong = [
        FieldError(pointer.format(i), f"{len(one.values)} values", f"{size} values")
        for i, one in enumerate(latents)
        if one.values is not None and len(one.values) != size
    ]
    if wrong:
        raise InvalidRequest(f"a latent of model '{model.name}' has {size} values", wrong)
