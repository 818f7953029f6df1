"""Networks as exported graphs, by the kind of model: what goes in and out, and how far rounding may go.

A generator takes `latent`, float32 [B, Z], and puts out uint8 [B, H, W, C] for each domain, named by it.
A classifier takes uint8 [B, H, W, C] of its domain, named by it, and puts out `classes`, float32 [B, K]:
probabilities. The way from and to bytes is part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from service.metadata import CLASSES, LATENT, ModelMetadata
from training.networks.adapted import AdaptedClassifier
from training.networks.coupled import CoupledGenerator
from training.networks.drawing import latents_of_seeds
from training.pixels.ranges import to_bytes
from training.pretrained.classifiers import Classifier


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type, and its shape behind the batch."""

    name: str
    kind: Literal["FP32", "UINT8"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A network from one tensor to a tuple of tensors, ready to be exported and proven."""

    network: nn.Module
    input: Port
    outputs: tuple[Port, ...]
    examples: Callable[[int], Tensor]
    """Makes an input of so many, always the same."""
    tolerance: float
    """Greatest difference between two libraries' outputs that rounding explains."""


class Drawing(nn.Module):
    """A generator with the way to bytes behind it: latents [B, Z] -> a tuple of uint8 [B, H, W, C]."""

    def __init__(self, generator: CoupledGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Draw pairs as the service sends them."""
        images = self.generator(latent).values()
        return tuple(to_bytes(batch, self.generator.image_range).permute(0, 2, 3, 1) for batch in images)


class Reading(nn.Module):
    """A classifier as it is asked: images uint8 [B, H, W, C] -> a tuple of one, probabilities [B, K]."""

    def __init__(self, classifier: Classifier | AdaptedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities of the classes."""
        return (self.classifier(images.permute(0, 3, 1, 2)).softmax(1),)


def _of_generator(generator: nn.Module, metadata: ModelMetadata) -> Graph:
    assert isinstance(generator, CoupledGenerator)
    prior = metadata.prior
    assert prior is not None, "a generator's metadata have one"
    return Graph(
        Drawing(generator).eval(),
        Port(LATENT, "FP32", (prior.latent_dim,)),
        tuple(Port(d.name, "UINT8", (d.height, d.width, d.channels)) for d in metadata.domains),
        lambda batch: latents_of_seeds(prior, range(batch)),
        tolerance=1,  # floats on the border of two bytes round differently
    )


def _of_classifier(classifier: nn.Module, metadata: ModelMetadata) -> Graph:
    assert isinstance(classifier, Classifier | AdaptedClassifier)
    (domain,) = metadata.domains
    shape = (domain.height, domain.width, domain.channels)

    def noise(batch: int) -> Tensor:
        known = torch.Generator().manual_seed(0)
        return torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=known)

    return Graph(
        Reading(classifier).eval(),
        Port(domain.name, "UINT8", shape),
        (Port(CLASSES, "FP32", (len(metadata.classes),)),),
        noise,
        tolerance=1e-4,
    )


GRAPHS: dict[str, Callable[[nn.Module, ModelMetadata], Graph]] = {
    "generator": _of_generator,
    "classifier": _of_classifier,
}
