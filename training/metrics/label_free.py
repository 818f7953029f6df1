"""Measures without labels, on features of a public network; and the distance of snapshots to real images.

Distances, precision, recall, the nearest training image. Images are uint8 [N, C, H, W], grey or RGB, of any size;
features float32 [N, F] on the CPU. Each measure stands beside its floor, its value for real images. An experiment that
learns from a network is measured by another.

Snapshots of a run are measured while it trains, by labels if there are classifiers. Their real images are those that
a domain learns from, and their latents are of seeds that `evaluate` does not use, so that the choice of a snapshot
uses none of the images and latents that evaluate it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from training.config.data import DomainConfig
from training.config.experiment import Experiment
from training.data.dataset import digest, load_split, load_training_sets, sample_images
from training.data.preprocess import cached
from training.data.sources import MIN_IMAGES
from training.errors import DataError, RunError
from training.losses.auxiliary import COUPLINGS
from training.losses.pixels import Images
from training.metrics.quality import FrechetDistance, Sets
from training.pretrained.classifier import classifier_file, load_classifier
from training.pretrained.features import PACKAGES, EfficientNetLite
from training.pretrained.recogniser import DomainRecogniser

MEASURING_SIDE: int | None = None  # pixels; None is the network's training size
SNAPSHOT_SIDE = 128  # pixels; a third of those of the networks' own size
NEIGHBOURS = 3  # Kynkaanniemi et al. 2019, section 3.1
BATCH = 8  # images; larger ones leave the cache of a CPU
NEAREST_SHOWN = 12  # generated images on the sheet, beside the nearest training image


def measuring_network(experiment: Experiment, side: int | None = None) -> EfficientNetLite:
    """Return the network that measures an experiment: the first that it does not learn from.

    Raises RunError if its package is missing.
    """
    couplings = [one for one in experiment.couplings if COUPLINGS[one.name].requires == "feature_network"]
    learned_from = {coupling.feature_network for coupling in couplings}
    return EfficientNetLite(next(name for name in PACKAGES if name not in learned_from), side or MEASURING_SIDE)


@torch.inference_mode()
def extract(network: EfficientNetLite, images: Tensor) -> Tensor:
    """Return the features [N, F] of images, computed where the network is."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device).float() / 255).cpu() for part in images.split(BATCH)])


def extract_real(network: EfficientNetLite, images: Tensor) -> Tensor:
    """Return the features of real images, which are kept in the cache of decoded images."""
    key = f"{network.name} {network.side} {tuple(images.shape)} {digest(images)}"
    return torch.from_numpy(cached("features", key.encode(), lambda: extract(network, images).numpy()))


def label_free_distance(real: Tensor, generated: Tensor, network: EfficientNetLite) -> float:
    """Return the Frechet distance of generated to real images; features of the real ones are cached.

    For snapshots during a run, with `network` of `measuring_network(experiment, SNAPSHOT_SIDE)`. A distance
    depends on the numbers of images and on the network, so only those of the same are compared.
    """
    return frechet(extract_real(network, real), extract(network, generated))


def frechet(real: Tensor, generated: Tensor) -> float:
    """Return the Frechet distance (Heusel et al. 2017, section 2) between the Gaussians of two sets of features.

    The trace of the root of the product of covariances A'A and B'B is the sum of the singular values of AB',
    which stays exact where there are fewer images than features.
    """
    (mean, root), (other_mean, other_root) = _gaussian(real), _gaussian(generated)
    overlap = torch.linalg.svdvals(root @ other_root.T).sum()
    spreads = root.square().sum() + other_root.square().sum()
    return float((mean - other_mean).square().sum() + spreads - 2 * overlap)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [F] and a root [min(N, F), F] of the covariance."""
    values = features.double()
    mean = values.mean(0)
    root = torch.linalg.qr(values - mean, mode="r").R / (len(values) - 1) ** 0.5
    return mean, root


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """Return the squared maximum mean discrepancy of a cubic kernel, KID (Binkowski et al. 2018, section 4).

    It is unbiased, so it may be negative, and may be compared over numbers of images; as many are taken of both.
    """
    count = min(len(real), len(generated))
    return float(poly_mmd(real[:count].double(), generated[:count].double()))


def precision_recall(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Return precision and recall (Kynkaanniemi et al. 2019, section 3.1).

    Precision is the share of generated images that lie among the real ones, within the distance of one of
    them to its third neighbour; recall the share of real ones that lie among the generated.
    """
    real, generated = real.double(), generated.double()
    distances = torch.cdist(real, generated)
    precision = (distances <= _radii(real)[:, None]).any(0)
    recall = (distances <= _radii(generated)[None, :]).any(1)
    return float(precision.float().mean()), float(recall.float().mean())


def _radii(features: Tensor) -> Tensor:
    """Return the distance of each image to its third neighbour [N]; the first of the sorted is the image itself."""
    rank = min(NEIGHBOURS + 1, len(features))
    return torch.cdist(features, features).kthvalue(rank, dim=1).values


def nearest(features: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance [N] to the nearest of other images, and its index [N]."""
    found = torch.cdist(features.double(), among.double()).min(1)
    return found.values, found.indices


def measure_without_labels(
    experiment: Experiment, pairs: Images, limit: int, device: torch.device
) -> tuple[dict[str, Any], dict[str, Images]]:
    """Measure the domains of `pairs` against test and training images, `limit` of each at most.

    As many generated images are compared as training images, which are the floor. Returns the measures as JSON, and
    for each domain the generated images that are nearest to a training image, beside it. Raises DataError, RunError.
    """
    network = measuring_network(experiment).to(device)
    learned = load_training_sets(experiment)
    measures, closest, compared = {}, {}, {}
    for domain in [one for one in experiment.domains if one.name in pairs]:
        name, real = domain.name, load_split(domain, "test", experiment.size)
        test, training = (sample_images(images, limit) for images in (real.images, learned[name].images))
        generated = pairs[name][: len(training)]  # as many as the floor has
        if min(map(len, (generated, test, training))) < MIN_IMAGES:
            raise DataError(f"domain {name}: {MIN_IMAGES} test and training images are needed to measure, or more")
        compared[name] = Compared(generated, test, training)
        features = Compared(extract(network, generated), extract_real(network, test), extract_real(network, training))
        measures[name], order, indices = _measure(features)
        measures[name]["images"]["learned_from"] = len(learned[name].images)
        closest[name] = {"generated": generated[order], "training": training[indices]}
    for name, shares in recognise_domains(compared, device).items():
        measures[name]["recognised"] = shares
    return {"network": network.name, "pixels": network.side, "domains": measures}, closest


class Compared(NamedTuple):
    """Images of a domain, uint8 [N, C, H, W], or their features [N, F]."""

    generated: Tensor
    test: Tensor
    training: Tensor


def _measure(features: Compared) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Measure a domain, and the same of training images against test images as the floor.

    Returns also which generated images are nearest to a training image, and to which.
    """
    generated, test, training = features
    count = min(len(generated), len(training))  # of both, as distances depend on it
    both = {"generated": generated[:count], "floor": training[:count]}
    likeness = {name: precision_recall(test, one) for name, one in both.items()}
    distances, indices = nearest(generated, training)
    order = distances.argsort()[:NEAREST_SHOWN]
    measures = {
        "images": {"compared": count, "test": len(test), "training": len(training)},
        "frechet_distance": {name: frechet(test, one) for name, one in both.items()},
        "kernel_distance": {name: kernel_distance(test, one) for name, one in both.items()},
        "precision": {name: precision for name, (precision, _) in likeness.items()},
        "recall": {name: recall for name, (_, recall) in likeness.items()},
        "nearest_training_image": {
            "generated": float(distances.median()),
            "floor": float(nearest(test, training)[0].median()),
        },
    }
    return measures, order, indices[order]


def recognise_domains(domains: Mapping[str, Compared], device: torch.device) -> dict[str, dict[str, float]]:
    """Return the share of each domain's images, generated and real, that a network takes for the domain's own.

    It shows whether generated images of two domains differ as real ones do.
    """
    recogniser = DomainRecogniser({name: own.training for name, own in domains.items()}, device)
    return {
        name: {"generated": recogniser.share(name, own.generated), "real": recogniser.share(name, own.test)}
        for name, own in domains.items()
    }


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


Maker = Callable[[Experiment, Sets, Path, torch.device], SnapshotMeasure]


def frechet_of_classifiers(
    experiment: Experiment, sets: Sets, classifiers: Path, device: torch.device
) -> SnapshotMeasure:
    """Measure by the features of the evaluation classifiers. Raises RunError if one has not been trained."""

    def distance(domain: DomainConfig) -> Callable[[Tensor], float]:
        classifier = load_classifier(classifier_file(classifiers, domain, experiment.size)).to(device)
        real = sets[domain.name].images
        to_real = cache(lambda: FrechetDistance(classifier, sample_images(real, MAX_REAL)))  # read at the first call
        return lambda generated: to_real()(generated)

    return SnapshotMeasure("frechet_distance", PAIRS, {domain.name: distance(domain) for domain in experiment.domains})


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
