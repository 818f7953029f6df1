"""Distance of snapshots of a run to real images, measured while it trains.

The real images are those that a domain learns from, and the latents are of seeds that `evaluate` does not take, so
that a snapshot that is chosen by its distance is judged by images and latents that had no part in the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from training.config.experiment import Experiment
from training.data.dataset import ImageSet
from training.data.sources import share_out
from training.errors import RunError
from training.losses.pixels import Images
from training.metrics.frechet import FrechetDistance
from training.metrics.label_free import SNAPSHOT_SIDE, label_free_distance, measuring_network
from training.pretrained.classifier import Classifier, classifier_file, load_classifier

FIRST_SEED = 1_000_000  # of the latents; `evaluate` takes those from 0
MAX_REAL = 10_000
PAIRS = 1000  # that are generated for each snapshot
PAIRS_WITHOUT_LABELS, MAX_REAL_WITHOUT_LABELS = 500, 1000  # fewer, as the network is larger


@dataclass(frozen=True)
class SnapshotMeasure:
    """A distance of generated to real images; the lower, the better."""

    name: str
    """Name in the metrics of a run, and in SNAPSHOT_MEASURES."""
    pairs: int
    """How many pairs are generated."""
    distances: Mapping[str, Callable[[Tensor], float]]
    """For each domain, the distance of generated images uint8 [N, C, H, W]."""

    @property
    def seeds(self) -> range:
        """Seeds of the latents that are generated."""
        return range(FIRST_SEED, FIRST_SEED + self.pairs)

    def __call__(self, pairs: Images) -> dict[str, float]:
        """Return the mean distance over domains, by the measure's name, and that of each: name/domain."""
        distances = {name: self.distances[name](images) for name, images in pairs.items()}
        mean = sum(distances.values()) / len(distances)
        return {self.name: mean} | {f"{self.name}/{name}": value for name, value in distances.items()}


class _Lazily:
    """A distance whose real images are read when it is first asked for."""

    def __init__(self, make: Callable[[], Callable[[Tensor], float]]) -> None:
        self._make = make
        self._made: Callable[[Tensor], float] | None = None

    def __call__(self, images: Tensor) -> float:
        self._made = self._made or self._make()
        return self._made(images)


Sets = Mapping[str, ImageSet]
Maker = Callable[[Experiment, Sets, Path, torch.device], SnapshotMeasure]


def frechet_of_classifiers(
    experiment: Experiment, sets: Sets, classifiers: Path, device: torch.device
) -> SnapshotMeasure:
    """Measure by the features of the evaluation classifiers. Raises RunError if one has not been trained."""
    distances = {}
    for domain in experiment.domains:
        classifier = load_classifier(classifier_file(classifiers, domain, experiment.size)).to(device)
        distances[domain.name] = _Lazily(partial(_frechet, classifier, sets[domain.name].images))
    return SnapshotMeasure("frechet_distance", PAIRS, distances)


def _frechet(classifier: Classifier, images: Tensor) -> FrechetDistance:
    return FrechetDistance(classifier, sample_images(images, MAX_REAL))


def without_labels(experiment: Experiment, sets: Sets, _classifiers: Path, device: torch.device) -> SnapshotMeasure:
    """Measure by the features of a public network. Raises RunError if its package is missing."""
    network = measuring_network(experiment, SNAPSHOT_SIDE).to(device)
    real = {name: sample_images(images.images, MAX_REAL_WITHOUT_LABELS) for name, images in sets.items()}
    distances = {name: partial(label_free_distance, images, network=network) for name, images in real.items()}
    return SnapshotMeasure("label_free_distance", PAIRS_WITHOUT_LABELS, distances)


SNAPSHOT_MEASURES: dict[str, Maker] = {  # the first that can be made
    "frechet_distance": frechet_of_classifiers,
    "label_free_distance": without_labels,
}


def choose_measure(
    experiment: Experiment,
    sets: Sets,
    classifiers: Path,
    device: torch.device,
    measures: Sequence[Maker] = tuple(SNAPSHOT_MEASURES.values()),
) -> tuple[SnapshotMeasure | None, str]:
    """Return the first measure that can be made of training sets, or None and the reasons against each.

    A run that ends before its first snapshot needs none.
    """
    if experiment.steps < experiment.measure_every:
        return None, f"the run ends before measure_every = {experiment.measure_every} steps"
    reasons = []
    for make in measures:
        try:
            return make(experiment, sets, classifiers, device), ""
        except RunError as error:
            reasons.append(str(error))
    return None, "; ".join(reasons)


def sample_images(images: Tensor, count: int) -> Tensor:
    """Return at most so many of the images, at random but always the same: folders are sorted by class."""
    return images[share_out(len(images), shares=1, seed=0)[0][:count]]
