"""The use case: seeds or latents in, an encoded answer with their coupled images out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

from service.cache import AnswerCache
from service.engine.entries import Job
from service.engine.model_registry import ModelRegistry
from service.engine.onnx_model import Images, Latents, OnnxModel
from service.errors import FieldError, InvalidRequest, TooLarge
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS, Drawing, Format
from service.generation.orders import Order, Source, Walk
from service.telemetry.metrics import Metrics
from service.wire.fields import Choice
from service.wire.inference import Inference, InferenceAnswer, write_inference

Seconds = Mapping[str, float]  # that each part of the work took
FROM_CACHE: Seconds = {"cache": 0.0}


class Answer(NamedTuple):
    """The bytes of an answer, the seconds that each part of the work took, and whether it was kept."""

    body: bytes
    seconds: Seconds
    kept: bool = False


class Generator:
    """Answers orders by the models that they were taken for, or from the cache."""

    def __init__(self, registry: ModelRegistry, answers: AnswerCache, metrics: Metrics) -> None:
        self._registry, self._answers, self._metrics = registry, answers, metrics
        self._encodings = cache(metrics.encode_duration.labels)

    def model(self, name: str | None, place: str = "body") -> OnnxModel:
        """Return the model of this name, or the default one. Raises UnknownModel and NotReady."""
        return self._registry.model(name, place=place)

    def order(
        self, choice: Choice, *, sources: Sequence[Source], walk: Walk | None, format_: str, place: str
    ) -> Order:
        """Bring what was chosen into one normal form.

        Raises UnknownModel, NotReady, InvalidRequest for a domain or latent that does not fit, and TooLarge
        for a picture that the format has no room for.
        """
        model = self.model(choice.model, place)
        _check_latents(model, sources, "/latents/{}" if walk is None else "/keyframes/{}/latent")
        order = Order(
            model=model,
            domains=_check_domains(model, choice.domains, place),
            sources=tuple(sources),
            truncation=choice.truncation,
            walk=walk,
            format=format_,
        )
        _check_sides(order, place)
        return order

    async def answer(self, order: Order, deadline: float) -> Answer:
        """Draw and encode an order. Raises what Batcher.draw raises."""
        if (kept := self._answers.get(order.key)) is not None:
            self._metrics.cache_hits.inc()
            return Answer(kept, FROM_CACHE, kept=True)
        self._metrics.cache_misses.inc()
        job = Job(order.model, order.size, order.latents, partial(self._encode, order))
        body, seconds = await self._registry.batcher(order.model.name).draw(job, deadline)
        self._answers.put(order.key, body)
        return Answer(body, seconds)

    async def infer(
        self, model: OnnxModel, inference: Inference, deadline: float
    ) -> tuple[InferenceAnswer, Seconds]:
        """Draw and encode a request of the Open Inference Protocol. Raises what Batcher.draw raises."""
        latents, write = inference.latents, partial(self._write, inference, model)
        job = Job(model, len(latents), lambda start, stop: latents[start:stop], write)
        return await self._registry.batcher(model.name).draw(job, deadline)

    def _encode(self, order: Order, latents: Latents, images: Images) -> bytes:
        drawing = Drawing(order, latents, {name: images[name] for name in order.domains})
        with self._encodings(order.format).time():
            return formats(walks=order.walk is not None)[order.format].encode(drawing)

    def _write(self, inference: Inference, model: OnnxModel, _: Latents, images: Images) -> InferenceAnswer:
        with self._encodings("tensors").time():
            return write_inference(inference, model, images)


def formats(walks: bool) -> Mapping[str, Format]:
    """Return the formats by name: those of interpolations or of pairs."""
    return FRAME_FORMATS if walks else PAIR_FORMATS


def _check_domains(model: OnnxModel, domains: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Return the domains to draw: all, or those asked for, each known and named once."""
    asked = tuple(domains) if domains is not None else model.domains
    wrong = [
        FieldError(f"/domains/{i}", name, list(model.domains), place)
        for i, name in enumerate(
            asked[: len(model.domains) + 1]
        )  # of more than there are, one is wrong by then
        if name not in model.domains or name in asked[:i]
    ]
    if wrong:
        raise InvalidRequest(
            f"the domains of model '{model.name}' are {', '.join(model.domains)}, each at most once", wrong
        )
    return asked


def _check_sides(order: Order, place: str) -> None:
    """Check that a format has room for the sheet, or for a frame: domains side by side."""
    drawn = [domain for domain in order.model.metadata.domains if domain.name in order.domains]
    rows = 1 if order.walk is not None else order.size
    height, width = rows * max(one.height for one in drawn), sum(one.width for one in drawn)
    known = formats(walks=order.walk is not None)
    if max(height, width) > (most := known[order.format].longest_side):
        roomy = [name for name, form in known.items() if form.longest_side == math.inf]
        raise TooLarge(
            f"{order.format} has at most {most} pixels a side, and these images would be {height} x {width}; "
            "ask for fewer of them at once, or for another format",
            [FieldError("/format", order.format, roomy, place)],
        )


def _check_latents(model: OnnxModel, sources: Sequence[Source], pointer: str) -> None:
    size = model.metadata.prior.latent_dim
    wrong = [
        FieldError(pointer.format(i), f"{len(source.values)} values", f"{size} values")
        for i, source in enumerate(sources)
        if source.values is not None and len(source.values) != size
    ]
    if wrong:
        raise InvalidRequest(f"a latent of model '{model.name}' has {size} values", wrong)
