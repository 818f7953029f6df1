"""Quality of pairs: every metric that the data of an experiment allow, as JSON.

Real images are the whole test split. Metrics that need labels are left out, with the reason, if a source has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config.data import DomainConfig, Use
from training.config.experiment import Experiment
from training.data.dataset import ImageSet, class_mismatch, load_pairs, load_split
from training.data.sources import share_out
from training.losses.pixels import Images, transform
from training.metrics.frechet import (
    class_agreement,
    class_balance,
    counterpart_distance,
    doubtful,
    frechet_distance,
    pixel_agreement,
)
from training.pretrained.classifier import Classifier, classifier_file, classify, confidence, load_classifier
from training.zoo import CLASSIFIERS

CONFIDENT = 0.9  # probability of a classifier's most probable class


def measure(experiment: Experiment, pairs: Images, classifiers: Path, device: torch.device) -> dict[str, Any]:
    """Return every measure that the experiment's data allow, as JSON; classifiers read on the device."""
    count = len(next(iter(pairs.values())))
    real = load_real(experiment)
    evaluation_classifiers, reasons = find_evaluation_classifiers(experiment, real, classifiers)
    for classifier in evaluation_classifiers.values():
        classifier.to(device)
    quality = {"pairs": count, "latents": f"index 0 of seeds 0 to {count - 1}"}
    quality["pixel_agreement"] = measure_pixels(experiment.domains, pairs, real)
    if counterparts := measure_counterparts(experiment, pairs):
        quality["counterpart_distance"] = counterparts
    if evaluation_classifiers:
        classified = {name: pairs[name] for name in evaluation_classifiers}
        names = {name: images.class_names for name, images in real.items()}
        quality |= measure_classes(classified, evaluation_classifiers, names)
        quality |= measure_real_pairs(experiment, evaluation_classifiers)
        quality |= measure_doubt(classified, real, evaluation_classifiers)
        quality["frechet_distance"] = measure_distances(experiment, pairs, real, evaluation_classifiers)
    if reasons:
        quality["without_classes"] = reasons
    return quality


def load_real(experiment: Experiment) -> dict[str, ImageSet]:
    """Load the whole test split of each domain. Raises DataError."""
    return {d.name: load_split(d, "test", experiment.size) for d in experiment.domains}


def load_evaluation_classifiers(
    experiment: Experiment, real: dict[str, ImageSet], classifiers: Path
) -> dict[str, Classifier]:
    """Load the evaluation classifier of each domain; none if none could be trained.

    Raises RunError if one has not been trained.
    """
    if why_not_classified(experiment, real):
        return {}
    return {
        domain.name: load_classifier(classifier_file(classifiers, domain, experiment.size))
        for domain in experiment.domains
    }


def find_evaluation_classifiers(
    experiment: Experiment, real: dict[str, ImageSet], classifiers: Path
) -> tuple[dict[str, Classifier], dict[str, str]]:
    """Return the evaluation classifiers that there are, by domain, and the reason for each that is missing."""
    found, reasons = {}, {}
    for domain in experiment.domains:
        file = classifier_file(classifiers, domain, experiment.size)
        if reason := why_not_classified(experiment, {domain.name: real[domain.name]}):
            reasons[domain.name] = reason
        elif file.is_file():
            found[domain.name] = load_classifier(file)
        else:
            reasons[domain.name] = f"{file} is missing: training.train_classifier makes it"
    return found, reasons


def why_not_classified(experiment: Experiment, real: dict[str, ImageSet]) -> str:
    """Return the reason why no classifier can evaluate the domains; empty if one can."""
    if unlabelled := [name for name, images in real.items() if images.labels is None]:
        return f"no labels for {', '.join(unlabelled)}"
    height, width = experiment.size
    known = any(table.size == experiment.size for table in CLASSIFIERS.values())
    return "" if known else f"no classifier architecture is for {height}x{width}"


def measure_pixels(domains: tuple[DomainConfig, ...], pairs: Images, real: dict[str, ImageSet]) -> dict[str, Any]:
    """Compare each domain that is a transform of another one with what the transform gives.

    The floor compares real images of the domain, each with another one at random.
    """
    measured = {}
    for domain in domains:
        origin = _origin(domain, domains)
        if origin is None:
            continue
        expected = transform(pairs[origin.name], domain.transform)
        mixed = _shuffle(real[domain.name].images)  # folders are sorted by class
        floor = pixel_agreement(mixed, mixed.roll(1, 0))
        agreement = pixel_agreement(expected, pairs[domain.name])
        measured[domain.name] = {"of": origin.name, **agreement, "floor": floor}
    return measured


def measure_counterparts(experiment: Experiment, pairs: Images) -> dict[str, Any]:
    """Return the distance within pairs: of generated ones, and beside it of the true pairs of test rows.

    Empty if the source has no true pairs. The floor is the distance within shuffled true pairs.
    """
    true = {name: images.images for name, images in load_pairs(experiment).items()}
    if not true:
        return {}
    first, *others = true
    return {
        name: {
            "of": first,
            "generated": counterpart_distance(pairs[first], pairs[name])["distance"],
            **{f"true_{key}": value for key, value in counterpart_distance(true[first], true[name]).items()},
        }
        for name in others
    }


def measure_classes(
    pairs: Images, evaluation_classifiers: dict[str, Classifier], names: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Return agreement of classes with the first domain, class balance, and accuracies of the classifiers.

    Domains whose sources call their classes otherwise than the first one's have none to agree on.
    """
    classes = {name: classify(evaluation_classifiers[name], images) for name, images in pairs.items()}
    first, *others = pairs
    mismatches = {name: class_mismatch({first: names[first], name: names[name]}) for name in others}
    reasons = [reason for reason in mismatches.values() if reason]
    left_out = {"not_measured": f"class agreement: {'; '.join(reasons)}"} if reasons else {}
    return left_out | {
        "class_agreement": {
            name: class_agreement(classes[first], classes[name]) for name, reason in mismatches.items() if not reason
        },
        "class_balance": {name: class_balance(classes[name], evaluation_classifiers[name].values) for name in pairs},
        "classifier_accuracy": {
            name: classifier.named_accuracy() for name, classifier in evaluation_classifiers.items()
        },
    }


def measure_real_pairs(experiment: Experiment, evaluation_classifiers: dict[str, Classifier]) -> dict[str, Any]:
    """Return the class agreement of true pairs of test images with the first domain: the most that pairs can reach.

    It is below 1 because classifiers err, and because classes may look alike. Empty without true pairs.
    """
    first, agreement = experiment.domains[0].name, {}
    for name, (images, counterparts) in load_true_pairs(experiment).items():
        if {first, name} <= evaluation_classifiers.keys():
            classes = classify(evaluation_classifiers[first], images)
            agreement[name] = class_agreement(classes, classify(evaluation_classifiers[name], counterparts))
    return {"class_agreement_of_real_pairs": agreement} if agreement else {}


def load_true_pairs(experiment: Experiment, use: Use = "test") -> dict[str, tuple[Tensor, Tensor]]:
    """Load the true pairs that each domain has with the first one: test or training images of both in one order.

    They are columns of one table, or transforms of the same images; other domains have none.
    """
    first, *others = experiment.domains
    columns, known = load_pairs(experiment, use), ("transform", "train_split", "held_out")
    pairs = {}
    for domain in others:
        if {first.name, domain.name} <= columns.keys():
            pairs[domain.name] = columns[first.name].images, columns[domain.name].images
        elif domain.image_fields(*known) == first.image_fields(*known):
            transformed = replace(first, transform=domain.transform)
            splits = (load_split(one, use, experiment.size).images for one in (first, transformed))
            pairs[domain.name] = next(splits), next(splits)
    return pairs


def measure_doubt(
    pairs: Images, real: dict[str, ImageSet], evaluation_classifiers: dict[str, Classifier]
) -> dict[str, Any]:
    """Return the share of doubtful images of each domain: those of which its classifier is not confident."""
    return {
        "doubtful_images": {
            name: {
                "below": CONFIDENT,
                "generated": doubtful(confidence(classifier, pairs[name]), CONFIDENT),
                "real": doubtful(confidence(classifier, real[name].images), CONFIDENT),
            }
            for name, classifier in evaluation_classifiers.items()
        }
    }


def measure_distances(
    experiment: Experiment, pairs: Images, real: dict[str, ImageSet], evaluation_classifiers: dict[str, Classifier]
) -> dict[str, Any]:
    """Compare generated images with real test images; the floor compares as many training images with them."""
    distances = {}
    for domain in [one for one in experiment.domains if one.name in evaluation_classifiers]:
        generated, test = pairs[domain.name], real[domain.name].images
        training = load_split(domain, "train", experiment.size).images
        classifier = evaluation_classifiers[domain.name]
        distances[domain.name] = {
            "drawn": frechet_distance(classifier, test, generated),
            "floor": frechet_distance(classifier, test, _shuffle(training)[: len(generated)]),
        }
    return distances


def _shuffle(images: Tensor) -> Tensor:
    return images[share_out(len(images), shares=1, seed=0)[0]]


def _origin(domain: DomainConfig, domains: tuple[DomainConfig, ...]) -> DomainConfig | None:
    """Return another domain that has the same images untransformed, of whatever split, if there is one."""
    wanted = domain.image_fields("transform", "train_split", "held_out")
    same = (d for d in domains if d.image_fields("train_split", "held_out") == wanted and d != domain)
    return next(same, None)
