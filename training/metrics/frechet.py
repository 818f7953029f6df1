"""Metrics of generated pairs, on uint8 images [N, C, H, W] and classes [N], or attributes [N, K].

Each is reported beside its floor, what it gives for real images that have nothing to do with each other
(pixel agreement) or that come from the same distribution (Frechet distance).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from training.pretrained.classifier import Classifier

TOLERANCES = (25, 51)  # of 255
PART = 1000  # images at a time, as measuring them takes many times their memory


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
