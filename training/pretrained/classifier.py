"""Classifiers of a domain's own images, and their files.

Some evaluate generated pairs (class agreement, balance, Frechet distance), some are used by a loss, and some are
exported and served. Each use has classifiers of its own, in another folder and of another seed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import log_softmax
from tqdm import tqdm

from service.metadata import Domain, Provenance
from training.config.data import DomainConfig
from training.config.experiment import Experiment
from training.data.dataset import ImageSet
from training.errors import DataError, RunError
from training.files import expecting, write_tensors
from training.losses.auxiliary import label_distribution, label_loss, label_probability, most_probable
from training.losses.pixels import AUGMENTATIONS, between_ranges, from_bytes
from training.networks.coupled import AdaptedClassifier
from training.networks.layers import build
from training.zoo import CLASSIFIERS

RANGE = (-1.0, 1.0)
TRAINING_BATCH = 128
INFERENCE_BATCH = 1000
PEAK_LEARNING_RATE = 3e-3


class TrainingRecord(BaseModel):
    """Training and measured quality of a classifier: the metadata of its export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: Domain
    class_names: tuple[str, ...]
    """By output index; empty for attributes."""
    provenance: Provenance
    quality: dict[str, JsonValue]
    data_license: str


class Classifier(nn.Module):
    """Images uint8 [B, C, H, W] -> logits [B, K]; `features` are the inputs of the last layer, [B, F].

    Logits are of attributes if these are named, else of classes that exclude one another.
    """

    def __init__(self, table: str, channels: int, classes: int, attributes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.settings = {"table": table, "channels": channels, "classes": classes, "attributes": attributes}
        layers, size = CLASSIFIERS[table].layers, CLASSIFIERS[table].size
        self.body: nn.Module
        self.body, shape = build(layers[:-1], (channels, *size), 1.0, {})
        self.last, _ = build(layers[-1:], shape, 1.0, {"classes": classes})
        self.num_features = shape[0]
        self.attributes = attributes
        self.labelling = "attributes" if attributes else "classes"
        self.values = 2 if attributes else classes
        """How many values a label has."""
        self.accuracy: Tensor  # on real test images, or that of each attribute
        self.register_buffer("accuracy", torch.zeros(classes if attributes else ()))

    def features(self, images: Tensor) -> Tensor:
        """Return the features [B, F] of uint8 images [B, C, H, W]."""
        features: Tensor = self.body(from_bytes(images, RANGE))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.logits(from_bytes(images, RANGE))

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of float images in RANGE."""
        logits: Tensor = self.last(self.body(images))
        return logits

    def named_accuracy(self) -> float | dict[str, float]:
        """Return the accuracy on real test images, or that of each attribute by its name."""
        if self.attributes:
            return dict(zip(self.attributes, self.accuracy.tolist(), strict=True))
        return float(self.accuracy)

    def of_range(self, image_range: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return a differentiable function from float images of that range to probabilities."""
        moved = between_ranges(image_range, RANGE)
        return lambda images: label_distribution(self.labelling, self.logits(moved(images))).probs


class ClassOfChoice(nn.Module):
    """Log probabilities of the classes that a latent's choices stand for, as a coupling loss needs them."""

    def __init__(self, classifier: Classifier, classes: Tensor) -> None:
        """Take the class [N] of each of N choices."""
        super().__init__()
        self.classifier, self.classes = classifier, classes.tolist()

    def of_range(self, image_range: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return a differentiable function from float images of that range to log probabilities [B, N]."""
        moved = between_ranges(image_range, RANGE)
        return lambda images: log_softmax(self.classifier.logits(moved(images)).float(), 1)[:, self.classes]


def share_choices(counts: Tensor, choices: int) -> Tensor:
    """Return the class [N] of each of N choices: one for every class, and the rest as they are frequent, by D'Hondt.

    `counts` [K] says how often each class occurs. Raises ValueError if there are fewer choices than classes.
    """
    if choices < len(counts):
        raise ValueError(f"{choices} choices of {len(counts)} classes")
    given = torch.ones(len(counts), dtype=torch.long)
    for _ in range(choices - len(counts)):
        given[(counts / (given + 1)).argmax()] += 1
    return torch.arange(len(counts)).repeat_interleave(given)


def fit(
    classifier: Classifier, training_set: ImageSet, epochs: int, seed: int, augmentations: Sequence[str] = ()
) -> int:
    """Train on labelled images; return the number of steps. Raises DataError if there are no labels."""
    torch.manual_seed(seed)
    images, labels, device = training_set.images, labels_of(training_set), classifier.accuracy.device
    steps = math.ceil(epochs * len(images) / TRAINING_BATCH)

    def loss() -> Tensor:
        rows = torch.randint(len(images), (TRAINING_BATCH,))
        batch = from_bytes(images[rows].to(device), RANGE)
        for name in augmentations:
            batch = AUGMENTATIONS[name](batch)
        distribution = label_distribution(classifier.labelling, classifier.logits(batch))
        return label_loss(distribution, labels[rows].to(device))

    train_once(classifier, loss, steps)
    return steps


def train_once(network: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Train a network with Adam over one cycle of the learning rate (Smith & Topin 2018), and show the progress.

    `loss` draws a batch and returns its loss, once a step. The network is in evaluation mode afterwards.
    """
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps)
    network.train()
    for _ in tqdm(range(steps), unit="step", mininterval=1.0):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()
    network.eval()


def classifier_file(folder: Path, domain: DomainConfig, size: tuple[int, int]) -> Path:
    """Name a domain's classifier by its source and a digest of all that its images, of height and width, depend on."""
    images = json.dumps([domain.image_fields(), size], sort_keys=True)
    digest = hashlib.sha256(images.encode()).hexdigest()[:8]
    return folder / f"{Path(domain.source).name}_{domain.transform}_{digest}.pt"


def save_classifier(classifier: Classifier, file: Path, record: TrainingRecord | None = None) -> None:
    """Write a classifier and its training record as a whole file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"settings": classifier.settings, "weights": classifier.state_dict()}
    if record is not None:
        state["record"] = record.model_dump_json()
    write_tensors(file, state)


def load_classifier(file: Path) -> Classifier:
    """Read a classifier for use. Raises RunError if it has not been trained, or its file is damaged."""
    return _load(file)[0]


def load_recorded(file: Path) -> tuple[Classifier, TrainingRecord]:
    """Read a classifier and its training record. Raises RunError if the file lacks one or is damaged."""
    classifier, state = _load(file)
    if "record" not in state:
        raise RunError(f"{file} has no training record, because an earlier version wrote it: {_remedy(file)} anew")
    with expecting("a training record of this version", file, f"{_remedy(file)} anew"):
        record = TrainingRecord.model_validate_json(state["record"])
    return classifier, record


def _load(file: Path) -> tuple[Classifier, dict[str, Any]]:
    if not file.is_file():
        raise RunError(f"{file} is missing: {_remedy(file)}")
    with expecting("a classifier", file, f"{_remedy(file)} anew"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        classifier = Classifier(**state["settings"])
        classifier.load_state_dict(state["weights"])
    return classifier.eval(), state


def _remedy(file: Path) -> str:
    return f"python -m training.train_classifier RECIPE.toml --classifiers {file.parent} makes it"


ImageClassifier = Classifier | AdaptedClassifier


def classify(classifier: ImageClassifier, images: Tensor) -> Tensor:
    """Return the labels of images, int64: classes [N], or attributes [N, K]."""
    return _predict(classifier, images, most_probable)


def confidence(classifier: ImageClassifier, images: Tensor, batch: int = INFERENCE_BATCH) -> Tensor:
    """Return the probability of each image's most probable labels: [N]."""
    return _predict(classifier, images, label_probability, batch)


def accuracy(classifier: ImageClassifier, test_set: ImageSet) -> Tensor:
    """Return the accuracy on labelled images: a scalar, or one an attribute [K]. Raises DataError without labels."""
    return (classify(classifier, test_set.images) == labels_of(test_set)).float().mean(0)


def accuracy_by_class(classifier: ImageClassifier, test_set: ImageSet, classes: int) -> dict[int, float]:
    """Return the accuracy on each class that has images. Raises DataError without labels."""
    labels = labels_of(test_set)
    right = (classify(classifier, test_set.images) == labels).float()
    return {k: float(right[labels == k].mean()) for k in range(classes) if (labels == k).any()}


def labels_of(images: ImageSet) -> Tensor:
    """Return the labels of images. Raises DataError if there are none."""
    if images.labels is None:
        raise DataError("a classifier needs labels, and the source has none")
    return images.labels


@torch.inference_mode()
def _predict(
    classifier: ImageClassifier,
    images: Tensor,
    statistic: Callable[[Distribution], Tensor],
    batch: int = INFERENCE_BATCH,
) -> Tensor:
    device = next(classifier.parameters()).device
    parts = (classifier(part.to(device)) for part in images.split(batch))
    return torch.cat([statistic(label_distribution(classifier.labelling, logits)).cpu() for logits in parts])


def prune(experiment: Experiment, sets: dict[str, ImageSet]) -> dict[str, ImageSet]:
    """Return each domain's images of which its classifier is confident; all without pruning.

    Raises RunError if a classifier has not been trained, DataError if no image is left.
    """
    return {domain.name: _prune(domain, sets[domain.name], experiment.size) for domain in experiment.domains}


def _prune(domain: DomainConfig, images: ImageSet, size: tuple[int, int]) -> ImageSet:
    if domain.prune.below == 0:
        return images
    classifier = load_classifier(classifier_file(Path(domain.prune.classifiers), domain, size))
    sure = confidence(classifier, images.images) >= domain.prune.below
    if not sure.any():
        raise DataError(f"domain {domain.name}: prune.below = {domain.prune.below} leaves no image")
    labels = None if images.labels is None else images.labels[sure]
    origins = tuple(itertools.compress(images.origins, sure.tolist()))
    return ImageSet(images.images[sure], labels, images.class_names, origins)
