"""What the discriminator learns beside judging: siblings of one signature, by name.

Each takes what a step asks the discriminator, the student, and its average, the teacher, and returns a scalar
for the student to minimise: a sum over domains, as the adversarial loss is. Axes: B batch, F features,
K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import cross_entropy

from training.losses.pixels import Images


@dataclass(frozen=True)
class AuxiliaryLoss:
    """A sentence about a cost, and the cost of a lecture to the student."""

    about: str
    loss: Callable[[AuxiliaryInputs], Tensor]
    needs_unlabelled: bool = False


def labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of the labelled images' classes (Liu & Tuzel 2016, section 5)."""
    return _sum(cross_entropy(read.float(), inputs.labels[name]) for name, read in inputs.labelled.items())


def pair_features(inputs: AuxiliaryInputs) -> Tensor:
    """Return twice the squared distance of a pair's features from their mean, summed over the domains.

    For two domains that is the squared distance between them, as the official code has it.
    """
    stacked = torch.stack([batch.float() for batch in inputs.features.values()])
    return 2.0 * (stacked - stacked.mean(0)).square().sum((0, 2)).mean()


def pseudo_labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of the unlabelled images' classes where the teacher is sure of them.

    The teacher sees the images as they are, the student altered ones (Sohn et al. 2020, equation 4).
    """
    return _sum(
        _pseudo_label_loss(read, inputs.ema_probabilities[name], inputs.confidence)
        for name, read in inputs.unlabelled.items()
    )


def pair_labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of the class of drawn images of unlabelled domains.

    It is the class that the teacher, where it is sure, reads in their pair's images of labelled domains.
    """
    ema_probabilities, confidence = inputs.ema_pair_probabilities, inputs.confidence
    return _sum(
        _pseudo_label_loss(read, ema_probabilities, confidence) for read in inputs.generated_unlabelled.values()
    )


def entropy(inputs: AuxiliaryInputs) -> Tensor:
    """Return the mean entropy of each unlabelled domain's classes, summed (Grandvalet & Bengio 2004)."""
    return _sum(torch.special.entr(read.float().softmax(1)).sum(1).mean() for read in inputs.unlabelled.values())


def _pseudo_label_loss(logits: Tensor, ema_probabilities: Tensor, confidence: float) -> Tensor:
    label_probability, classes = ema_probabilities.max(1)
    costs = cross_entropy(logits.float(), classes, reduction="none")
    return (costs * (label_probability >= confidence)).mean()


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(costs)).sum()


AUXILIARY_LOSSES: dict[str, AuxiliaryLoss] = {
    "labels": AuxiliaryLoss("classes of labelled images (Liu & Tuzel 2016)", labels),
    "pair_features": AuxiliaryLoss("like features of the images of a pair (the official code's)", pair_features),
    "pair_labels": AuxiliaryLoss(
        "classes that the teacher reads in a pair's labelled images", pair_labels, needs_unlabelled=True
    ),
    "pseudo_labels": AuxiliaryLoss(
        "classes that the teacher is sure of (FixMatch)", pseudo_labels, needs_unlabelled=True
    ),
    "entropy": AuxiliaryLoss("sure classes of unlabelled images", entropy, needs_unlabelled=True),
}


class Classifying(Protocol):
    """What lessons ask of a discriminator, by domain."""

    def classify(self, images: Images) -> Images:
        """Return the logits of the classes [B, K]."""
        ...

    def features(self, images: Images) -> Images:
        """Return what the logits are made of [B, F]."""
        ...


@dataclass(frozen=True)
class AuxiliaryInputs:
    """The images of a step and what is read in them, each by domain, and read when a lesson first asks."""

    discriminator: Classifying
    ema_discriminator: Classifying
    confidence: float
    """Least probability at which a class that the teacher reads counts."""
    real: Images
    """[B, C, H, W], as they are: the teacher's view."""
    augmented: Images
    """The same, augmented: the student's view."""
    labels: Images
    """[B], of the labelled domains alone."""
    generated: Images
    """[B, C, H, W], pairs without the generator's graph."""

    @cached_property
    def labelled(self) -> Images:
        """The student's logits of the labelled images."""
        return self.discriminator.classify({name: self.augmented[name] for name in self.labels})

    @cached_property
    def unlabelled(self) -> Images:
        """The student's logits of the others."""
        return self.discriminator.classify(self._without_labels(self.augmented))

    @cached_property
    def generated_unlabelled(self) -> Images:
        """The student's logits of what was drawn for the unlabelled domains."""
        return self.discriminator.classify(self._without_labels(self.generated))

    @cached_property
    def ema_probabilities(self) -> Images:
        """The teacher's probabilities of the unlabelled images."""
        return self._ema_probabilities(self._without_labels(self.real))

    @cached_property
    def ema_pair_probabilities(self) -> Tensor:
        """The teacher's probabilities of pairs, the mean over their images of labelled domains."""
        read = self._ema_probabilities({name: self.generated[name] for name in self.labels})
        return torch.stack(list(read.values())).mean(0)

    @cached_property
    def features(self) -> Images:
        """The student's features of the drawn images."""
        return self.discriminator.features(self.generated)

    def _without_labels(self, images: Images) -> Images:
        return {name: batch for name, batch in images.items() if name not in self.labels}

    @torch.no_grad()
    def _ema_probabilities(self, images: Images) -> Images:
        return {name: logits.float().softmax(1) for name, logits in self.ema_discriminator.classify(images).items()}


DISTRIBUTIONS: dict[str, type[Categorical | Bernoulli]] = {"classes": Categorical, "attributes": Bernoulli}


def label_distribution(labelling: str, logits: Tensor) -> Categorical | Bernoulli:
    """Return the distribution that logits [B, K] stand for; its `probs` are [B, K]."""
    return DISTRIBUTIONS[labelling](logits=logits.float(), validate_args=False)


def label_loss(distribution: Distribution, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of the labels: of all images, and of all their attributes."""
    return -distribution.log_prob(labels.float()).mean()


def most_probable(distribution: Distribution) -> Tensor:
    """Return the most probable labels; an attribute as probable as not is 0."""
    return distribution.mode.nan_to_num().long()


def label_probability(distribution: Distribution) -> Tensor:
    """Return the probability [B] of the most probable labels, of all attributes together."""
    likelihood = distribution.log_prob(most_probable(distribution).float())
    return likelihood.reshape(len(likelihood), -1).sum(1).exp()
