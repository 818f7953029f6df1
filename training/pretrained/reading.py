"""What a classifier, of whatever kind, makes of images: labels, how sure it is, and how often it is right.

Images are on the CPU, uint8 [N, C, H, W]; they are read where the classifier is, and answers are on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from training.errors import DataError
from training.images.sets import ImageSet
from training.objectives.labelling import most_probable, say, sureness

BATCH = 1000


class Reader(Protocol):
    """What is asked about images: a classifier of a domain's own, or one that lessons made."""

    labelling: str

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits [B, K] of uint8 images [B, C, H, W]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return its weights, which are on one device."""
        ...


@torch.inference_mode()
def classify(reader: Reader, images: Tensor, batch: int = BATCH) -> Tensor:
    """Return the labels of images, int64: classes [N], or attributes [N, K]."""
    return _ask(reader, images, batch, most_probable)


@torch.inference_mode()
def confidence(reader: Reader, images: Tensor, batch: int = BATCH) -> Tensor:
    """Return the probability of what is most probable of each image: [N]."""
    return _ask(reader, images, batch, sureness)


def accuracy(reader: Reader, test_set: ImageSet) -> Tensor:
    """Return the share of labelled images that are read as labelled: a scalar, or one an attribute [K].

    Raises DataError where there are no labels.
    """
    return (classify(reader, test_set.images) == labels_of(test_set)).float().mean(0)


def accuracy_by_class(reader: Reader, test_set: ImageSet, classes: int) -> dict[int, float]:
    """Return the share of each class' images that are classified right, of the classes that have any.

    Raises DataError if there are no labels.
    """
    labels = labels_of(test_set)
    right = (classify(reader, test_set.images) == labels).float()
    return {k: float(right[labels == k].mean()) for k in range(classes) if (labels == k).any()}


def labels_of(images: ImageSet) -> Tensor:
    """Return the labels of images. Raises DataError where there are none."""
    if images.labels is None:
        raise DataError("a classifier needs labels, and the source has none")
    return images.labels


def _ask(reader: Reader, images: Tensor, batch: int, question: Callable[[Distribution], Tensor]) -> Tensor:
    device = next(reader.parameters()).device
    parts = (reader(part.to(device)) for part in images.split(batch))
    return torch.cat([question(say(reader.labelling, logits)).cpu() for logits in parts])
