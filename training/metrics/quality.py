"""Quality of pairs: every metric that the data of an experiment allow, as JSON.

Images are uint8 [N, C, H, W], labels classes [N] or attributes [N, K]. Real images are the whole test split. Each
metric is reported beside its floor, its value for unrelated real images (pixel agreement) or for images of the same
distribution (Frechet distance). Metrics that need labels are left out, with the reason, if a source has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from training.config.data import DomainConfig, Use
from training.config.experiment import Experiment
from training.data.dataset import ImageSet, class_mismatch, load_pairs, load_split, sample_images
from training.losses.pixels import Images, transform
from training.pretrained.classifier import Classifier, classifier_file, classify, confidence, load_classifier
from training.zoo import CLASSIFIERS

Sets = dict[str, ImageSet]  # real images by domain
Classifiers = dict[str, Classifier]  # that evaluate, by domain
TOLERANCES = (25, 51)  # of 255
PART = 1000  # images at a time, as their features take many times their memory


def pixel_agreement(expected: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the share of pixels that agree (Liu & Tuzel 2016, section 4), by three criteria.

    `expected` is the domain's own transform of the other domain's images, `generated` the images generated for it.
    The paper does not state its tolerance: both sides of mid-grey alike, or a difference of at most so many levels.
    """
    agreeing = dict.fromkeys(("binarised", *(f"within_{tolerance}" for tolerance in TOLERANCES)), 0)
    for one, other in zip(expected.split(PART), generated.split(PART), strict=True):
        difference = (one.short() - other.short()).abs()
        agreeing["binarised"] += int(((one > 127) == (other > 127)).sum())
        for tolerance in TOLERANCES:
            agreeing[f"within_{tolerance}"] += int((difference <= tolerance).sum())
    return {name: count / expected.numel() for name, count in agreeing.items()}


def counterpart_distance(images: Tensor, counterparts: Tensor) -> dict[str, float]:
    """Return the mean distance between images and their counterparts, [N, C, H, W] each, in row order.

    The distance of two images is the root of the mean squared difference of their values, of 1 between black
    and white; grey is compared with colour as three equal channels. The floor is of shuffled pairs: each
    image with the counterpart of another one.
    """
    others = torch.randperm(len(counterparts), generator=torch.Generator().manual_seed(0))
    shuffled = torch.empty_like(counterparts)
    shuffled[others] = counterparts[others.roll(1)]  # no image keeps its own
    return {"distance": _distance(images, counterparts), "floor": _distance(images, shuffled)}


def _distance(images: Tensor, others: Tensor) -> float:
    parts = zip(images.split(PART), others.split(PART), strict=True)
    distances = [((one.float() - other.float()) / 255).square().mean((1, 2, 3)).sqrt() for one, other in parts]
    return float(torch.cat(distances).double().mean())


def class_agreement(classes: Tensor, other_classes: Tensor) -> float:
    """Return the share of pairs whose images have the same class, or of attributes that they share."""
    return float((classes == other_classes).double().mean())


def doubtful(confidences: Tensor, below: float) -> float:
    """Return the share of images whose most probable class has less than that probability."""
    return float((confidences < below).double().mean())


def class_balance(classes: Tensor, values: int) -> float:
    """Return the entropy of the classes over its maximum: 1 for equally many of each, 0 for one alone.

    Of attributes [N, K] it is the mean over them, each of which has two `values`.
    """
    columns = classes.reshape(len(classes), -1).T
    shares = torch.stack([torch.bincount(column, minlength=values) for column in columns]).double()
    entropies = torch.special.entr(shares / len(classes)).sum(1)
    return float(entropies.mean() / math.log(values))


class FrechetDistance:
    """Frechet distance (Heusel et al. 2017, section 2) of images to real ones, which are read once."""

    @torch.inference_mode()
    def __init__(self, classifier: Classifier, real: Tensor, batch: int = PART) -> None:
        """Take the features of the classifier, on its device."""
        self._metric = FrechetInceptionDistance(feature=_Features(classifier), reset_real_features=False)
        self._batch = batch
        self._update(real, is_real=True)

    @torch.inference_mode()
    def __call__(self, generated: Tensor) -> float:
        """Return the distance of generated images."""
        self._metric.reset()
        self._update(generated, is_real=False)
        return float(self._metric.compute())

    def _update(self, images: Tensor, is_real: bool) -> None:
        for part in images.split(self._batch):
            self._metric.update(part, real=is_real)


def frechet_distance(classifier: Classifier, real: Tensor, generated: Tensor, batch: int = PART) -> float:
    """Return the Frechet distance of generated to real images, in the classifier's features."""
    return FrechetDistance(classifier, real, batch)(generated)


class _Features(torch.nn.Module):
    """Features of images on the CPU, computed where the classifier is."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.num_features = classifier.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images.to(self.classifier.accuracy.device)).cpu()


CONFIDENT = 0.9  # probability of a classifier's most probable class


def measure(experiment: Experiment, pairs: Images, classifiers: Path, device: torch.device) -> dict[str, Any]:
    """Return every measure that the experiment's data allow, as JSON; classifiers read on the device."""
    count, real = len(next(iter(pairs.values()))), load_real(experiment)
    found, reasons = find_evaluation_classifiers(experiment, real, classifiers, device)
    quality = {"pairs": count, "latents": f"index 0 of seeds 0 to {count - 1}"}
    quality["pixel_agreement"] = measure_pixels(experiment.domains, pairs, real)
    if counterparts := measure_counterparts(experiment, pairs):
        quality["counterpart_distance"] = counterparts
    if found:
        quality |= measure_classified(experiment, pairs, real, found)
    if reasons:
        quality["without_classes"] = reasons
    return quality


def measure_classified(experiment: Experiment, pairs: Images, real: Sets, classifiers: Classifiers) -> dict[str, Any]:
    """Return every measure that needs evaluation classifiers, of the domains that have one, as JSON."""
    classified = {name: pairs[name] for name in classifiers}
    names = {name: images.class_names for name, images in real.items()}
    measured = measure_classes(classified, classifiers, names) | measure_real_pairs(experiment, classifiers)
    measured |= measure_doubt(classified, real, classifiers)
    return measured | {"frechet_distance": measure_distances(experiment, pairs, real, classifiers)}


def load_real(experiment: Experiment) -> Sets:
    """Load the whole test split of each domain. Raises DataError."""
    return {d.name: load_split(d, "test", experiment.size) for d in experiment.domains}


def load_evaluation_classifiers(experiment: Experiment, real: Sets, folder: Path) -> Classifiers:
    """Load the evaluation classifier of each domain; none if none could be trained.

    Raises RunError if one has not been trained.
    """
    domains = () if why_not_classified(experiment, real) else experiment.domains
    return {domain.name: load_classifier(classifier_file(folder, domain, experiment.size)) for domain in domains}


def find_evaluation_classifiers(
    experiment: Experiment, real: Sets, folder: Path, device: torch.device
) -> tuple[Classifiers, dict[str, str]]:
    """Return the evaluation classifiers that there are, by domain, and the reason for each that is missing."""
    found, reasons = {}, {}
    for domain in experiment.domains:
        file = classifier_file(folder, domain, experiment.size)
        if reason := why_not_classified(experiment, {domain.name: real[domain.name]}):
            reasons[domain.name] = reason
        elif file.is_file():
            found[domain.name] = load_classifier(file).to(device)
        else:
            reasons[domain.name] = f"{file} is missing: training.train_classifier makes it"
    return found, reasons


def why_not_classified(experiment: Experiment, real: Sets) -> str:
    """Return the reason why no classifier can evaluate the domains; empty if one can."""
    if unlabelled := [name for name, images in real.items() if images.labels is None]:
        return f"no labels for {', '.join(unlabelled)}"
    height, width = experiment.size
    known = any(table.size == experiment.size for table in CLASSIFIERS.values())
    return "" if known else f"no classifier architecture is for {height}x{width}"


def measure_pixels(domains: tuple[DomainConfig, ...], pairs: Images, real: Sets) -> dict[str, Any]:
    """Compare each domain that is a transform of another one with the transformed images.

    The floor compares real images of the domain, each with another one at random.
    """
    measured = {}
    for domain in domains:
        wanted = domain.image_fields("transform", "train_split", "held_out")  # of the same images, of whatever split
        same = (d for d in domains if d.image_fields("train_split", "held_out") == wanted and d != domain)
        if (origin := next(same, None)) is None:
            continue
        expected = transform(pairs[origin.name], domain.transform)
        mixed = sample_images(real[domain.name].images)  # folders are sorted by class
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


def measure_classes(pairs: Images, classifiers: Classifiers, names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return agreement of classes with the first domain, class balance, and accuracies of the classifiers.

    Domains whose sources call their classes otherwise than the first one's have none to agree on.
    """
    classes = {name: classify(classifiers[name], images) for name, images in pairs.items()}
    first, *others = pairs
    mismatches = {name: class_mismatch({first: names[first], name: names[name]}) for name in others}
    reasons = [reason for reason in mismatches.values() if reason]
    alike = [name for name, reason in mismatches.items() if not reason]
    return {
        **({"not_measured": f"class agreement: {'; '.join(reasons)}"} if reasons else {}),
        "class_agreement": {name: class_agreement(classes[first], classes[name]) for name in alike},
        "class_balance": {name: class_balance(classes[name], classifiers[name].values) for name in pairs},
        "classifier_accuracy": {name: classifier.named_accuracy() for name, classifier in classifiers.items()},
    }


def measure_real_pairs(experiment: Experiment, classifiers: Classifiers) -> dict[str, Any]:
    """Return the class agreement of true pairs of test images with the first domain: the most that pairs can reach.

    It is below 1 because classifiers err, and because classes may look alike. Empty without true pairs.
    """
    first, agreement = experiment.domains[0].name, {}
    for name, (images, counterparts) in load_true_pairs(experiment).items():
        if {first, name} <= classifiers.keys():
            classes = classify(classifiers[first], images)
            agreement[name] = class_agreement(classes, classify(classifiers[name], counterparts))
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
            both = first, replace(first, transform=domain.transform)
            images, counterparts = (load_split(one, use, experiment.size).images for one in both)
            pairs[domain.name] = images, counterparts
    return pairs


def measure_doubt(pairs: Images, real: Sets, classifiers: Classifiers) -> dict[str, Any]:
    """Return the share of doubtful images of each domain: those of which its classifier is not confident."""
    measured = {}
    for name, classifier in classifiers.items():
        images = {"generated": pairs[name], "real": real[name].images}
        shares = {kind: doubtful(confidence(classifier, kept), CONFIDENT) for kind, kept in images.items()}
        measured[name] = {"below": CONFIDENT, **shares}
    return {"doubtful_images": measured}


def measure_distances(experiment: Experiment, pairs: Images, real: Sets, classifiers: Classifiers) -> dict[str, Any]:
    """Compare generated images with real test images; the floor compares as many training images with them."""
    distances = {}
    for domain in [one for one in experiment.domains if one.name in classifiers]:
        generated, test = pairs[domain.name], real[domain.name].images
        training = load_split(domain, "train", experiment.size).images
        classifier = classifiers[domain.name]
        distances[domain.name] = {
            "drawn": frechet_distance(classifier, test, generated),
            "floor": frechet_distance(classifier, test, sample_images(training)[: len(generated)]),
        }
    return distances
