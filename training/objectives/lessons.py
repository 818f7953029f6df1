"""What the discriminator learns beside judging: siblings of one signature, by name.

Each takes what a step asks the discriminator, the student, and its average, the teacher, and returns a scalar
for the student to minimise: a sum over domains, as the adversarial loss is. Axes: B batch, F features,
K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.objectives.lecture import Lecture


@dataclass(frozen=True)
class Lesson:
    """A sentence about a cost, and the cost of a lecture to the student."""

    about: str
    cost: Callable[[Lecture], Tensor]
    needs_unlabelled: bool = False


def labels(lecture: Lecture) -> Tensor:
    """Return the cross entropy of the labelled images' classes (Liu & Tuzel 2016, section 5)."""
    return _sum(cross_entropy(read.float(), lecture.labels[name]) for name, read in lecture.labelled.items())


def pair_features(lecture: Lecture) -> Tensor:
    """Return twice the squared distance of a pair's features from their mean, summed over the domains.

    For two domains that is the squared distance between them, as the official code has it.
    """
    stacked = torch.stack([batch.float() for batch in lecture.features.values()])
    return 2.0 * (stacked - stacked.mean(0)).square().sum((0, 2)).mean()


def pseudo_labels(lecture: Lecture) -> Tensor:
    """Return the cross entropy of the unlabelled images' classes where the teacher is sure of them.

    The teacher sees the images as they are, the student altered ones (Sohn et al. 2020, equation 4).
    """
    return _sum(_follow(read, lecture.taught[name], lecture.confidence) for name, read in lecture.unlabelled.items())


def pair_labels(lecture: Lecture) -> Tensor:
    """Return the cross entropy of the class of drawn images of unlabelled domains.

    It is the class that the teacher, where it is sure, reads in their pair's images of labelled domains.
    """
    taught, confidence = lecture.taught_of_pairs, lecture.confidence
    return _sum(_follow(read, taught, confidence) for read in lecture.drawn_unlabelled.values())


def entropy(lecture: Lecture) -> Tensor:
    """Return the mean entropy of each unlabelled domain's classes, summed (Grandvalet & Bengio 2004)."""
    return _sum(torch.special.entr(read.float().softmax(1)).sum(1).mean() for read in lecture.unlabelled.values())


def _follow(logits: Tensor, taught: Tensor, confidence: float) -> Tensor:
    sureness, classes = taught.max(1)
    costs = cross_entropy(logits.float(), classes, reduction="none")
    return (costs * (sureness >= confidence)).mean()


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(costs)).sum()


LESSONS: dict[str, Lesson] = {
    "labels": Lesson("classes of labelled images (Liu & Tuzel 2016)", labels),
    "pair_features": Lesson("like features of the images of a pair (the official code's)", pair_features),
    "pair_labels": Lesson(
        "classes that the teacher reads in a pair's labelled images", pair_labels, needs_unlabelled=True
    ),
    "pseudo_labels": Lesson("classes that the teacher is sure of (FixMatch)", pseudo_labels, needs_unlabelled=True),
    "entropy": Lesson("sure classes of unlabelled images", entropy, needs_unlabelled=True),
}
