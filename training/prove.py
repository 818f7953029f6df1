"""Prove what generated pairs are good for, by networks that learn from them and are tested on real images.

    python -m training.prove models/digit_edge --to docs/proof
    python -m training.prove docs/proof --page docs/proof.md

The first measures an exported model, whose metadata has the experiment and so the real images, and writes NAME.json
into a folder; the second writes a page from the files of that folder. Classifiers that are served with the model
label and filter its pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from torch import Tensor

from service.latents import draw_latent
from service.metadata import graph_digest
from training.cli import parse, verb
from training.config import Positive, listed, one_of
from training.config.data import DomainConfig, Use
from training.config.experiment import Experiment, parse_kept
from training.data.dataset import ImageSet, class_mismatch, load_split
from training.engine.machine import Machine
from training.errors import ConfigError, DataError
from training.files import check_writable, make_folder, write_json, write_lines
from training.losses.pixels import Images
from training.metrics.label_free import measure_without_labels
from training.metrics.quality import (
    counterpart_distance,
    find_evaluation_classifiers,
    load_real,
    load_true_pairs,
    measure_classified,
    why_not_classified,
)
from training.metrics.translation import Examples, compare, fit_translator, join_prints, measure_copies, take_prints
from training.pretrained.classifier import Classifier, accuracy, fit, labels_of
from training.pretrained.exported import model_file, read_metadata
from training.runs.folder import RunFolder, provenance
from training.runs.proof_page import page, section
from training.sample import Source, open_session, open_source
from training.zoo import CLASSIFIERS, size_mismatch

MAX_CANDIDATES = 1000  # of a seed, as the service has it
DECIMALS = 6  # of a confidence, as the service has it
PLACES = ("to", "page", "models", "classifiers", "machine")  # options that change no figure
BLOCK = 1000  # pairs that are generated at a time
USES: tuple[Use, ...] = ("train", "test")
OWN_LABELS, OTHER_LABELS = 0.97, 0.96  # of the accuracy by real images, to reach
TRANSFORM, COLUMN = 0.9, 0.5  # of the way from the floor to real pairs, to reach: of a transform, of other pairs


@dataclass(frozen=True)
class ProofOptions:
    """Amounts to train on and to measure, and the place of the result."""

    to: Path = Path("proofs")
    """Folder of the result, NAME.json."""
    page: Path = Path("proof.md")
    """Page to write, if the target is a folder of results."""
    models: Path = Path("models")
    """Folder of the served classifiers, <name>/<version>/model.onnx."""
    classifiers: Path = Path("classifiers")
    """Folder of the evaluation classifiers, which measure what the filters give; without them that is left out."""
    pairs: Annotated[int, Field(ge=2)] = 20_000
    """Pairs to train on: one of each seed from 0, the first candidate that passes the filters."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Least confidence of every label."""
    agree: bool = True
    """Require equal classes in all domains."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of the networks."""
    epochs: Positive = 4
    """Times that a network sees every pair, on average."""
    table: Annotated[str, one_of(CLASSIFIERS), listed(CLASSIFIERS)] = "digit_small"
    """Architecture of the classifiers."""
    copies: Annotated[int, Field(ge=2)] = 100_000
    """Pairs without filters, of seeds from 0, that are searched for copies."""
    images: Annotated[int, Field(ge=2)] = 1000
    """Number of them, and of real images, for precision and recall."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Prove a model, or write the page of a folder of results."""
    options = parse(ProofOptions(), arguments)
    if RunFolder.is_at(target):
        raise ConfigError(f"{target} is a run: export it, and prove the model, models/NAME")
    if any(target.glob("*.json")):
        write_lines(options.page, page(target).splitlines())
        print(options.page)
        return
    check_writable(make_folder(options.to))
    result = prove(target, options)
    file = options.to / f"{result['model']}.json"
    write_json(file, result)
    print(f"{section(result)}\n{file}")


def prove(target: Path, options: ProofOptions) -> dict[str, Any]:
    """Return all that can be proven of an exported model, as JSON. Raises RunError, DataError, ConfigError."""
    made, file = provenance(), model_file(target)
    metadata, digest = read_metadata(file), graph_digest(file.read_bytes())
    source, experiment = open_source(file, options.machine), parse_kept(metadata.provenance.experiment)
    classifiers = served_classifiers({metadata.name, digest}, experiment, options)
    if classifiers and (wrong := size_mismatch(CLASSIFIERS, options.table, experiment.size)):
        raise ConfigError(f"table = {options.table!r}: {wrong}")
    proof = Proof(source, experiment, classifiers, options, options.machine.device("a proof"))
    pairs = draw_pairs(source, classifiers, options)
    networks, left_out = proof.classifiers_learn(pairs)
    translators, others_left_out = proof.translators_learn(pairs)
    kept = TypeAdapter(ProofOptions).dump_python(options, mode="json", exclude={*PLACES})
    return {
        "model": metadata.name,
        "version": metadata.version,
        "graph_digest": digest,
        "made_by": made,
        "options": kept,
        "pairs": {"taken": len(pairs.seeds), "candidates": pairs.tried, "classifiers": list(classifiers)},
        "networks": networks + translators,
        "left_out": left_out + others_left_out,
        "filters": proof.filters_help(pairs),
        **proof.likeness(),
        "processor_minutes": round(time.process_time() / 60, 1),
    }


class ServedClassifier:
    """A classifier of the models folder: images uint8 [N, C, H, W] -> names of classes [N] and confidences [N]."""

    def __init__(self, file: Path, machine: Machine) -> None:
        self.metadata = read_metadata(file)
        self._session = open_session(file, machine)

    def __call__(self, images: Tensor) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Return the labels."""
        domain = self.metadata.domains[0].name
        (shares,) = self._session.run(None, {domain: images.movedim(1, -1).contiguous().numpy()})
        return np.array(self.metadata.classes)[shares.argmax(1)], shares.max(1).round(DECIMALS)


Classifiers = Mapping[str, ServedClassifier]  # by domain


def served_classifiers(generator: set[str], experiment: Experiment, options: ProofOptions) -> Classifiers:
    """Open the classifiers that go with a generator of these names: for each domain the first by name, if any."""
    found: dict[str, ServedClassifier] = {}
    for folder in sorted({path.parents[1] for path in options.models.glob("*/*/model.onnx")}):
        metadata = read_metadata(model_file(folder))
        if metadata.kind == "classifier" and generator & set(metadata.goes_with):
            found.setdefault(metadata.domains[0].name, ServedClassifier(model_file(folder), options.machine))
    return {domain.name: found[domain.name] for domain in experiment.domains if domain.name in found}


class Pairs(NamedTuple):
    """One pair of each seed that has one: images [N, C, H, W] and class names [N] by domain; how many were tried."""

    seeds: Tensor
    images: Images
    classes: Mapping[str, NDArray[np.str_]]
    tried: int


def draw(source: Source, seeds: Tensor, index: int = 0) -> Images:
    """Draw the pairs of an index of seeds."""
    return source.draw(torch.from_numpy(np.stack([draw_latent(source.prior, seed, index) for seed in seeds.tolist()])))


def draw_pairs(source: Source, classifiers: Classifiers, options: ProofOptions) -> Pairs:
    """Draw one pair of each seed, the first of its candidates that passes, as a filtered data set has it.

    Raises DataError if no seed has one.
    """
    seeds, parts = torch.arange(options.pairs), list[Pairs]()
    for index in range(MAX_CANDIDATES):
        rest = []
        for some in seeds.split(BLOCK):
            images = draw(source, some, index)
            labels = {name: classify(images[name]) for name, classify in classifiers.items()}
            passed = np.ones(len(some), bool)
            for classes, confidences in labels.values():
                first, _ = next(iter(labels.values()))
                passed &= (confidences >= options.min_confidence) & ((classes == first) | (not options.agree))
            names = {name: classes[passed] for name, (classes, _) in labels.items()}
            parts.append(Pairs(some[passed], {name: one[passed] for name, one in images.items()}, names, len(some)))
            rest.append(some[~passed])
        seeds = torch.cat(rest)
        if not len(seeds):
            break
    return _join(parts, options)


def _join(parts: list[Pairs], options: ProofOptions) -> Pairs:
    """Join pairs in the order of their seeds."""
    seeds, order = torch.cat([part.seeds for part in parts]).sort()
    tried = sum(part.tried for part in parts)
    if not len(seeds):
        wanted = f"min_confidence = {options.min_confidence}, agree = {options.agree}"
        raise DataError(f"{wanted}: none of {tried:,} pairs passes the filters")
    images = {name: torch.cat([part.images[name] for part in parts])[order] for name in parts[0].images}
    classes = {name: np.concatenate([part.classes[name] for part in parts])[order] for name in parts[0].classes}
    return Pairs(seeds, images, classes, tried)


Proven = tuple[list[dict[str, Any]], list[str]]  # results, and why others are missing


@dataclass(frozen=True)
class Proof:
    """A model, its experiment and classifiers, and the measurements of a proof."""

    source: Source
    experiment: Experiment
    classifiers: Classifiers
    options: ProofOptions
    device: torch.device

    def classifiers_learn(self, pairs: Pairs) -> Proven:
        """Train classifiers of every domain by the labels of the first that has some."""
        first = next(iter(self.classifiers), None)
        if first is None:
            return [], ["No classifiers learned from the pairs: none that is served goes with the model."]
        results, reasons, known = [], [], self.classifiers[first].metadata.classes
        for domain in self.experiment.domains:
            real = {use: load_split(domain, use, self.experiment.size) for use in USES}
            reason = why_not_classified(self.experiment, {domain.name: real["test"]})
            if reason := reason or class_mismatch({f"{first} as served": known, domain.name: real["test"].class_names}):
                reasons.append(f"No classifier of {domain.name} learned from the pairs: {reason}.")
                continue
            own = domain.name == first
            taken = pairs if own else draw_pairs(self.source, {first: self.classifiers[first]}, self.options)
            labels = torch.from_numpy((taken.classes[first][:, None] == np.array(known)).argmax(1))
            result = self._compare_classifiers(domain, (taken.images[domain.name], labels), real, len(known))
            what = {"network": f"classifier of {domain.name}", "labels": first, "measure": "accuracy"}
            results.append(what | result | {"to_reach": OWN_LABELS if own else OTHER_LABELS})
        return results, reasons

    def _compare_classifiers(
        self, domain: DomainConfig, generated: Examples, real: Mapping[Use, ImageSet], classes: int
    ) -> dict[str, Any]:
        def train(examples: Examples, seed: int) -> float:
            torch.manual_seed(seed)
            classifier = Classifier(self.options.table, domain.channels, classes).to(self.device)
            fit(classifier, ImageSet(*examples), self.options.epochs, seed)
            return float(accuracy(classifier, real["test"]))

        training, labels = real["train"], labels_of(real["test"])
        examples = training.images, labels_of(training)
        floor = int(labels.bincount().max()) / len(labels)
        compared = compare(train, generated, examples, self.options.seeds, worst=0.0)
        return {"test_images": len(labels), "floor": floor, **compared}

    def translators_learn(self, pairs: Pairs) -> Proven:
        """Train translators from the first domain to every other one that has true pairs with it."""
        first, *others = self.experiment.domains
        true = {use: load_true_pairs(self.experiment, use) for use in USES}
        results, reasons = [], []
        for domain in others:
            if any(domain.name not in known for known in true.values()):
                reasons.append(f"No translation from {first.name} to {domain.name}: there are no true pairs.")
                continue
            generated = pairs.images[first.name], pairs.images[domain.name]
            what = {"network": f"translation from {first.name} to {domain.name}", "measure": "distance"}
            result = self._compare_translators(generated, *(true[use][domain.name] for use in USES))
            results.append(what | result | {"to_reach": COLUMN if domain.transform == first.transform else TRANSFORM})
        return results, reasons

    def _compare_translators(self, generated: Examples, training: Examples, test: Examples) -> dict[str, Any]:
        given, expected = test

        def train(examples: Examples, seed: int) -> float:
            translator = fit_translator(examples, self.options.epochs, seed, self.device)
            return counterpart_distance(translator.translate(given), expected)["distance"]

        floor = counterpart_distance(given, expected)["distance"]
        compared = compare(train, generated, training, self.options.seeds, worst=floor, falls=True)
        return {"test_images": len(given), "floor": floor, **compared}

    def filters_help(self, pairs: Pairs) -> dict[str, Any]:
        """Measure filtered pairs, and as many without filters, by evaluation classifiers; empty without these."""
        if not self.classifiers:
            return {}
        real, experiment = load_real(self.experiment), self.experiment
        found, _ = find_evaluation_classifiers(experiment, real, self.options.classifiers, self.device)
        if not found:
            return {}
        blocks = [draw(self.source, seeds) for seeds in torch.arange(len(pairs.seeds)).split(BLOCK)]
        every = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
        groups = {"filtered": pairs.images, "all": every}
        return {name: measure_classified(experiment, images, real, found) for name, images in groups.items()}

    def likeness(self) -> dict[str, Any]:
        """Return precision and recall of each domain's images, and how many are copies, as JSON."""
        options, experiment = self.options, self.experiment
        blocks = (draw(self.source, seeds) for seeds in torch.arange(options.copies).split(BLOCK))
        parts = [{name: take_prints(images) for name, images in block.items()} for block in blocks]
        generated = {name: join_prints([part[name] for part in parts]) for name in parts[0]}
        copies = {}
        for domain in experiment.domains:
            real = (take_prints(load_split(domain, use, experiment.size).images) for use in USES)
            copies[domain.name] = measure_copies(generated[domain.name], *real)
        different = len(set(zip(*(one.digests for one in generated.values()), strict=True)))
        sample = draw(self.source, torch.arange(options.images))
        measured, _ = measure_without_labels(experiment, sample, options.images, self.device)
        equal = {"pairs": options.copies, "equal_to_another": options.copies - different}
        return {"without_labels": measured, "copies": equal | {"domains": copies}}


if __name__ == "__main__":
    main()
