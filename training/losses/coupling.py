"""Coupling losses of the generator, by name.

Most hold the images of a pair together, beside shared layers; some hold them to real images. Each takes the
generated images and the inputs that it requires, and returns a scalar to minimise: a sum over domains,
as the adversarial loss is, so that a weight means the same for any number of them. Axes: B batch, Z latent,
K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from training.losses.pixels import Images


@dataclass(frozen=True)
class GeneratedBatch:
    """The generated images of a step, with the generator's graph."""

    images: Images
    """[B, C, H, W] by domain."""
    latents: Tensor = field(default_factory=lambda: torch.empty(0))
    """[B, Z], the same for all domains."""
    features: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    """By domain, the output of each of its own generator layers."""
    real: Images = field(default_factory=dict)
    """[B, C, H, W] by domain: the real images of the step, unpaired with the generated ones."""


@dataclass(frozen=True)
class CouplingInputs:
    """Inputs of a coupling loss besides the generated images; only those named in `Coupling.asks` are filled."""

    layers: int = 1
    """Number of the domains' own generator layers to compare, from the first on."""
    weights: Mapping[str, Sequence[Sequence[Tensor]]] = field(default_factory=dict)
    """By domain, the weights of each of its own generator layers."""
    classify: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By domain, images -> probabilities [B, K], of classes or of attributes."""
    image_features: Mapping[str, Callable[[Tensor], Sequence[Tensor]]] = field(default_factory=dict)
    """By domain, images -> features [B, C, H, W] of a feature network; the last ones are of the content."""
    encode: Callable[[Images], Images] | None = None
    """Images -> latents [B, Z], by domain."""


@dataclass(frozen=True)
class Coupling:
    """A description, the inputs required besides the generated images, and the loss."""

    about: str
    asks: Literal["classifiers", "layers", "encoder", "feature_network", "nothing"]
    loss: Callable[[GeneratedBatch, CouplingInputs], Tensor]


def semantic(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the probabilities of classes or attributes.

    They come from classifiers trained on the real images of each domain alone, so nothing paired is needed, but
    labels are.
    """
    return _spread([inputs.classify[name](batch) for name, batch in generated.images.items()])


def weights(_drawn: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of each weight of the first own layers, summed over weights."""
    rows = islice(zip(*inputs.weights.values(), strict=True), inputs.layers)
    return torch.stack([_spread(same) for row in rows for same in zip(*row, strict=True)]).sum()


def features(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the outputs of the first own layers, summed over layers."""
    rows = islice(zip(*generated.features.values(), strict=True), inputs.layers)
    return torch.stack([_spread(same) for same in rows]).sum()


def cycle(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the mean absolute difference between latents and the encoder's of their images."""
    assert inputs.encode  # an experiment with this loss has an encoder
    predicted = inputs.encode(generated.images)
    return torch.stack([(latents - generated.latents).abs().mean() for latents in predicted.values()]).sum()


def content(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the images' content.

    That is the last features of a network of image classes (Gatys et al. 2016, equation 1).
    """
    return _spread([inputs.image_features[name](batch)[-1] for name, batch in generated.images.items()])


def style(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the mean squared difference between Gram matrices of generated and of real images.

    The mean is over all features but the last (Gatys et al. 2016, equations 3 to 5).
    """
    losses = []
    for name, batch in generated.images.items():
        with torch.no_grad():
            target = inputs.image_features[name](generated.real[name])[:-1]
        predicted = inputs.image_features[name](batch)[:-1]
        by_layer = [(_gram(a) - _gram(b)).square().mean() for a, b in zip(predicted, target, strict=True)]
        losses.append(torch.stack(by_layer).mean())
    return torch.stack(losses).sum()


def reconstruction(generated: GeneratedBatch, _inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the Huber loss between generated and real images, whose minimum is their mean."""
    losses = [huber_loss(batch, generated.real[name]) for name, batch in generated.images.items()]
    return torch.stack(losses).sum()


def _gram(features: Tensor) -> Tensor:
    """Return the Gram matrix [B, C, C] of features [B, C, H, W]."""
    return torch.einsum("bihw,bjhw->bij", features, features) / features[0, 0].numel()


def _spread(values: Sequence[Tensor]) -> Tensor:
    """Return twice the mean squared difference from the domains' mean, summed over domains.

    For two domains that is the mean squared difference between them, as Soft-CoGAN has it.
    """
    stacked = torch.stack([value.float() for value in values])
    return 2.0 * (stacked - stacked.mean(0)).square().flatten(1).mean(1).sum()


COUPLINGS = {
    "semantic": Coupling("classes that agree (Soft-CoGAN's semantic loss)", "classifiers", semantic),
    "weights": Coupling("own layers with equal weights (Soft-CoGAN's weight regulariser)", "layers", weights),
    "features": Coupling("own layers with equal outputs (its feature regulariser)", "layers", features),
    "cycle": Coupling("an encoder finds the latent in every image (its cycle consistency)", "encoder", cycle),
    "content": Coupling(
        "equal features of a pretrained network (the content of its perceptual loss)", "feature_network", content
    ),
    "style": Coupling("Gram matrices of real images (the style of its perceptual loss)", "feature_network", style),
    "reconstruction": Coupling(
        "the mean real image, for a start that should fade (DCGAN-Tensorflow)", "nothing", reconstruction
    ),
}
