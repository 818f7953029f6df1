"""Pairs of a spec, labelled and filtered, as a generator of jobs: batchers or a thread of its own run these.

Axes: B batch, Z latent, H height, W width, C channels, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from service.engine.batcher import Encoding, Job
from service.engine.onnx_model import Arrays, OnnxModel, concatenate, take
from service.errors import FieldError, InvalidRequest, RunFailed
from service.generation.images import Pixels
from service.generation.spec import Filters, GenerationSpec, LatentSpec
from service.metadata import CLASSES, Kind

MAX_CANDIDATES = 1_000  # of a seed; a constant, so that every replica takes the same ones
ROWS = 16  # of a run whose number of rows is free; others can have their turn after it
DECIMALS = 6  # of a confidence

T = TypeVar("T")
Computed = tuple[Arrays, Arrays]  # inputs and outputs of a job
Steps = Generator[Job[Computed], Computed, T]  # yields jobs, is sent what they computed, returns the result


class Label(NamedTuple):
    """The class of an image, as a classifier predicts it."""

    class_name: str
    confidence: float


class PairLabels(dict[str, Label]):
    """Labels of the images of one pair, by domain."""

    @property
    def agree(self) -> bool | None:
        """True if all classes are equal; None without any."""
        return len({label.class_name for label in self.values()}) == 1 if self else None

    def as_json(self) -> dict[str, Any]:
        """Return the members `labels` and `agree` of a pair."""
        named = {name: {"class": one.class_name, "confidence": one.confidence} for name, one in self.items()}
        return {"labels": named, "agree": self.agree}

    def pass_(self, filters: Filters) -> bool:
        """Return whether filters accept the pair."""
        first, *_ = self.values()
        return (
            filters.class_name in (None, first.class_name)
            and all(label.confidence >= filters.min_confidence for label in self.values())
            and (self.agree is True or not filters.agree)
        )


@dataclass(frozen=True)
class GeneratedImages:
    """The images of a spec: inputs with `latent`, float32 [B, Z], and {domain: uint8 [B, H, W, C]}; B labels."""

    spec: GenerationSpec
    inputs: Arrays
    images: Mapping[str, Pixels]
    labels: Sequence[PairLabels] = ()  # if requested


def dump(value: object) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"))


def companions(kind: Kind, generator: OnnxModel, models: Sequence[OnnxModel]) -> dict[str, OnnxModel]:
    """Return the classifiers or encoders among `models` that go with a generator: the first of each of its domains."""
    fitting = {
        model.domains[0]: model
        for model in reversed(models)
        if model.metadata.kind == kind
        and {generator.name, generator.graph_digest} & set(model.metadata.goes_with)
        and not model.metadata.domains[1:]
        and model.inputs[0] in generator.outputs
        and (kind == "classifier" or model.outputs == generator.inputs)
    }
    return {name: fitting[name] for name in generator.domains if name in fitting}


def add_classifiers(spec: GenerationSpec, models: Sequence[OnnxModel], place: str) -> GenerationSpec:
    """Return a spec with the classifiers among `models` that its labels and filters need.

    Raises InvalidRequest for filters that no classifier can apply, or a class that it does not know.
    """
    found = companions("classifier", spec.model, models)
    spec = replace(spec, classifiers=tuple(found[name] for name in spec.domains if name in found))
    if (filters := spec.filters) is None:
        return spec
    chosen = filters.class_name
    if not spec.classifiers:
        name, value = next(iter(filters.given.items()))
        wrong = FieldError(f"/{name}", value, "no filter, or a domain that has a classifier", place)
        raise InvalidRequest(f"no classifier of {', '.join(spec.domains)} goes with model '{spec.model.name}'", [wrong])
    known = spec.classifiers[0].metadata.classes
    if chosen is not None and chosen not in known:
        domain = spec.classifiers[0].domains[0]
        wrong = FieldError("/class", chosen, known, place)
        raise InvalidRequest(f"no class {chosen!r:.80}; those of domain '{domain}' are {', '.join(known)}", [wrong])
    return spec


def generate(spec: GenerationSpec, place: str | None = None) -> Steps[GeneratedImages]:
    """Compute the pairs of a spec by jobs. The spec of the result has the latents that were taken.

    If too few candidates of a seed pass the filters, raises InvalidRequest for a request whose fields are in `place`;
    without one, those that pass are returned.
    """
    if spec.filters is not None:
        return (yield from _filter(spec, spec.filters, place))
    inputs, outputs = yield Job(spec.model, spec.size, spec.inputs, keep_all, 0.0)
    images = {name: outputs[name] for name in spec.domains}
    labels = (yield from _label(spec.classifiers, images, spec.size)) if spec.labels else ()
    return GeneratedImages(spec, inputs, images, labels)


def _label(classifiers: Sequence[OnnxModel], images: Mapping[str, Pixels], size: int) -> Steps[list[PairLabels]]:
    found = [PairLabels() for _ in range(size)]
    for model in classifiers:
        (domain,) = model.domains
        _, outputs = yield Job(model, size, partial(take, {domain: images[domain]}), keep_all, 0.0)
        probabilities = outputs[CLASSES]
        for labels, row, best in zip(found, probabilities, probabilities.argmax(1), strict=True):
            labels[domain] = Label(model.metadata.classes[best], round(float(row[best]), DECIMALS))
    return found


class _Candidates:
    """The candidates of one seed: the number tried, and those that passed."""

    def __init__(self, first: LatentSpec, count: int) -> None:
        self.first, self.missing = first, count
        self.tried, self.rounds = 0, 0
        self.passed: list[tuple[LatentSpec, Arrays, Arrays, PairLabels]] = []  # inputs and images of one row

    @property
    def open(self) -> bool:
        return self.missing > 0 and self.tried < MAX_CANDIDATES

    def take(self, room: int) -> list[LatentSpec]:
        """Return the next candidates: as many as are needed, and more with every round in vain."""
        self.rounds += 1
        start, self.tried = self.tried, min(self.tried + min(self.missing * self.rounds, room), MAX_CANDIDATES)
        return [replace(self.first, index=self.first.index + i) for i in range(start, self.tried)]

    def keep(self, batch: GeneratedImages, i: int) -> None:
        """Keep a copy of pair `i` of a batch, so that the others need no memory."""
        inputs, images = ({name: array[[i]] for name, array in rows.items()} for rows in (batch.inputs, batch.images))
        self.passed.append((batch.spec.latents[i], inputs, images, batch.labels[i]))
        self.missing -= 1


def _filter(spec: GenerationSpec, filters: Filters, place: str | None) -> Steps[GeneratedImages]:
    seeds = [_Candidates(first, spec.count) for first in spec.latents]
    while pending := [seed for seed in seeds if seed.open]:
        owners, latents = list[_Candidates](), list[LatentSpec]()
        for seed in pending:
            latents += seed.take(ROWS - len(latents))
            owners += [seed] * (len(latents) - len(owners))
            if len(latents) == ROWS:
                break
        batch = yield from generate(replace(spec, latents=tuple(latents), count=1, labels=True, filters=None))
        for i, owner in enumerate(owners):
            if owner.missing and batch.labels[i].pass_(filters):
                owner.keep(batch, i)
        if place is not None and (failed := [seed for seed in pending if seed.missing and not seed.open]):
            few, count = len(failed[0].passed), spec.count
            detail = f"{few} of {MAX_CANDIDATES} candidates of seed {failed[0].first.seed} pass the filters"
            given = {"count": count} if few else filters.given
            allowed = f"at most {few}, or wider filters" if few else "a wider filter"
            wrong = [FieldError(f"/{name}", value, allowed, place) for name, value in given.items()]
            raise InvalidRequest(f"{detail}, fewer than the count of {count}", wrong)
    rows = [row for seed in seeds for row in seed.passed]
    if not rows:
        return GeneratedImages(replace(spec, latents=(), count=1), {}, {})
    taken, inputs, images, labels = zip(*rows, strict=True)
    own = replace(spec, latents=taken, count=1)
    return GeneratedImages(own, concatenate(inputs), concatenate(images), labels if spec.labels else ())


def keep_all(inputs: Arrays, outputs: Arrays) -> Encoding[Computed]:
    """Return the inputs and outputs of a job."""
    return inputs, outputs
    yield


def run_here(steps: Steps[T]) -> Iterator[T | None]:
    """Run steps in this thread: yield None after every run of a model, and then the result. Raises RunFailed."""
    try:
        job = next(steps)
        while True:
            inputs = job.inputs(0, job.size)
            try:
                outputs = job.model.run(inputs)
            except Exception as error:  # onnxruntime's errors share no base class
                raise RunFailed(f"model '{job.model.name}' failed on this request's input") from error
            job = steps.send((inputs, outputs))
            yield None
    except StopIteration as stop:
        yield stop.value
