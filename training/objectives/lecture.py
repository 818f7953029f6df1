"""What lessons are about: the images of a step, and what a discriminator and its average read in them.

Axes: B batch, F features, K classes, C channels, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from training.pixels.ranges import Images


class Reader(Protocol):
    """What lessons ask of a discriminator, by domain."""

    def classify(self, images: Images) -> Images:
        """Return the logits of the classes [B, K]."""
        ...

    def features(self, images: Images) -> Images:
        """Return what the logits are made of [B, F]."""
        ...


@dataclass(frozen=True)
class Lecture:
    """The images of a step and what is read in them, each by domain, and read when a lesson first asks."""

    student: Reader
    teacher: Reader
    confidence: float
    """Least probability at which a class that the teacher reads counts."""
    real: Images
    """[B, C, H, W], as they are: the teacher's view."""
    altered: Images
    """The same, augmented: the student's view."""
    labels: Images
    """[B], of the labelled domains alone."""
    drawn: Images
    """[B, C, H, W], pairs without the generator's graph."""

    @cached_property
    def labelled(self) -> Images:
        """The student's logits of the labelled images."""
        return self.student.classify({name: self.altered[name] for name in self.labels})

    @cached_property
    def unlabelled(self) -> Images:
        """The student's logits of the others."""
        return self.student.classify(self._without_labels(self.altered))

    @cached_property
    def drawn_unlabelled(self) -> Images:
        """The student's logits of what was drawn for the unlabelled domains."""
        return self.student.classify(self._without_labels(self.drawn))

    @cached_property
    def taught(self) -> Images:
        """The teacher's probabilities of the unlabelled images."""
        return self._teach(self._without_labels(self.real))

    @cached_property
    def taught_of_pairs(self) -> Tensor:
        """The teacher's probabilities of pairs, the mean over their images of labelled domains."""
        read = self._teach({name: self.drawn[name] for name in self.labels})
        return torch.stack(list(read.values())).mean(0)

    @cached_property
    def features(self) -> Images:
        """The student's features of the drawn images."""
        return self.student.features(self.drawn)

    def _without_labels(self, images: Images) -> Images:
        return {name: batch for name, batch in images.items() if name not in self.labels}

    @torch.no_grad()
    def _teach(self, images: Images) -> Images:
        return {name: logits.float().softmax(1) for name, logits in self.teacher.classify(images).items()}
