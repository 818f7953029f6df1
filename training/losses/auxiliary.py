"""Losses beside the adversarial one, by name: coupling losses of the generator, auxiliary losses of the discriminator.

Most coupling losses hold the images of a pair together, beside shared layers; some hold them to real images. All
return a scalar to minimise: a sum over domains, as the adversarial loss is, so that a weight means the same for any
number of them. Axes: B batch, Z latent, F features, K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import cross_entropy, huber_loss

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
    """Inputs of a coupling loss besides the generated images; only those named in `Coupling.requires` are filled."""

    layers: int = 1
    """Number of the domains' own generator layers to compare, from the first on."""
    weights: Mapping[str, Sequence[Sequence[Tensor]]] = field(default_factory=dict)
    """By domain, the weights of each of its own generator layers."""
    classify: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By domain, images -> probabilities [B, K], of classes or of attributes."""
    image_features: Mapping[str, Callable[[Tensor], Sequence[Tensor]]] = field(default_factory=dict)
    """By domain, images -> features [B, C, H, W] of a feature network; the last ones are of the content."""
    read_choices: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By domain, images -> log probabilities [B, N] of the class that each of a latent's N choices stands for."""
    recognise: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By domain, images -> log probabilities [B] that they are the domain's own."""
    encode: Callable[[Images], Images] | None = None
    """Images -> latents [B, Z], by domain."""


@dataclass(frozen=True)
class Coupling:
    """A coupling loss: a description, the inputs required besides the generated images, and the function."""

    about: str
    requires: Literal["classifiers", "choices", "layers", "encoder", "feature_network", "recogniser", "nothing"]
    loss: Callable[[GeneratedBatch, CouplingInputs], Tensor]


def semantic(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the probabilities of classes or attributes.

    Each domain's classifier is trained on its real images alone: that needs labels, and no pairs.
    """
    return _spread([inputs.classify[name](batch) for name, batch in generated.images.items()])


def classes(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the cross entropy of images with the class that their latent's choice stands for.

    That is the generator's part of AC-GAN (Odena et al. 2017, equation 3), by classifiers that learn nothing
    meanwhile, each from its domain's labelled images.
    """
    losses = []
    for name, batch in generated.images.items():
        read = inputs.read_choices[name](batch)
        choices = generated.latents[:, : read.shape[1]].argmax(1, keepdim=True)
        losses.append(-read.gather(1, choices).mean())
    return _sum(losses)


def weights(_generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of each weight of the first own layers, summed over weights."""
    rows = islice(zip(*inputs.weights.values(), strict=True), inputs.layers)
    return _sum(_spread(same) for row in rows for same in zip(*row, strict=True))


def features(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the outputs of the first own layers, summed over layers."""
    rows = islice(zip(*generated.features.values(), strict=True), inputs.layers)
    return _sum(_spread(same) for same in rows)


def cycle(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the mean absolute difference between latents and the encoder's of their images."""
    assert inputs.encode  # an experiment with this loss has an encoder
    return _sum((latents - generated.latents).abs().mean() for latents in inputs.encode(generated.images).values())


def content(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Return the spread over domains of the images' content, the last features (Gatys et al. 2016, equation 1)."""
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
    return _sum(losses)


def recognised(generated: GeneratedBatch, inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the cross entropy of generated images with their own domain (Choi et al. 2018, equation 3).

    What sets the domains apart must show; a network that learned it from the training images says whether it does.
    """
    return _sum(-inputs.recognise[name](batch).mean() for name, batch in generated.images.items())


def reconstruction(generated: GeneratedBatch, _inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the Huber loss between generated and real images, whose minimum is their mean."""
    return _sum(huber_loss(batch, generated.real[name]) for name, batch in generated.images.items())


def pixels(generated: GeneratedBatch, _inputs: CouplingInputs) -> Tensor:
    """Sum, over domains, the mean absolute difference between images and the median of their pair.

    Of two domains that is the difference between them. Shared layers allow pairs that are light in one domain and
    dark in another; of all that look real, this prefers those that differ least, and in few places.
    """
    images = torch.broadcast_tensors(*generated.images.values())  # grey beside RGB
    stacked = torch.stack([batch.float() for batch in images])
    return (stacked - stacked.median(0).values).abs().flatten(1).mean(1).sum()


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
    "classes": Coupling("each of generator.choices shows one class (AC-GAN's)", "choices", classes),
    "weights": Coupling("own layers with equal weights (Soft-CoGAN's weight regulariser)", "layers", weights),
    "features": Coupling("own layers with equal outputs (its feature regulariser)", "layers", features),
    "pixels": Coupling("images of a pair that differ in few pixels", "nothing", pixels),
    "cycle": Coupling("an encoder finds the latent in every image (its cycle consistency)", "encoder", cycle),
    "content": Coupling(
        "equal features of a pretrained network (the content of its perceptual loss)", "feature_network", content
    ),
    "style": Coupling("Gram matrices of real images (the style of its perceptual loss)", "feature_network", style),
    "recognised": Coupling("images that are taken for their own domain's (StarGAN's)", "recogniser", recognised),
    "reconstruction": Coupling(
        "the mean real image, for a start that should fade (DCGAN-Tensorflow)", "nothing", reconstruction
    ),
}


DISTRIBUTIONS: dict[str, type[Categorical | Bernoulli]] = {"classes": Categorical, "attributes": Bernoulli}


@dataclass(frozen=True)
class AuxiliaryLoss:
    """An auxiliary loss: a description, the function, and whether it needs a domain without labels."""

    about: str
    loss: Callable[[AuxiliaryInputs], Tensor]
    needs_unlabelled: bool = False


def labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of the labelled images' classes (Liu & Tuzel 2016, section 5)."""
    logits = inputs.discriminator.classify({name: inputs.augmented[name] for name in inputs.labels})
    return _sum(cross_entropy(read.float(), inputs.labels[name]) for name, read in logits.items())


def pair_features(inputs: AuxiliaryInputs) -> Tensor:
    """Return twice the squared distance of a pair's features from their mean, summed over the domains.

    For two domains that is the squared distance between them, as the official code has it.
    """
    features = inputs.discriminator.features(inputs.generated)
    stacked = torch.stack([batch.float() for batch in features.values()])
    return 2.0 * (stacked - stacked.mean(0)).square().sum((0, 2)).mean()


def pseudo_labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of the unlabelled images with the EMA's classes, if these are confident.

    The EMA sees the images as they are, the discriminator augmented ones (Sohn et al. 2020, equation 4).
    """
    logits, ema_probabilities = inputs.unlabelled, inputs.ema_probabilities(inputs.without_labels(inputs.real))
    return _sum(_pseudo_label_loss(read, ema_probabilities[name], inputs.confidence) for name, read in logits.items())


def pair_labels(inputs: AuxiliaryInputs) -> Tensor:
    """Return the cross entropy of generated images of unlabelled domains with the class of their pair.

    It is the EMA's class, if confident, by the mean over the pair's images of labelled domains.
    """
    by_domain = inputs.ema_probabilities({name: inputs.generated[name] for name in inputs.labels})
    ema_probabilities = torch.stack(list(by_domain.values())).mean(0)
    logits = inputs.discriminator.classify(inputs.without_labels(inputs.generated))
    return _sum(_pseudo_label_loss(read, ema_probabilities, inputs.confidence) for read in logits.values())


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
    "pair_features": AuxiliaryLoss("equal features of the images of a pair (the official code's)", pair_features),
    "pair_labels": AuxiliaryLoss(
        "classes of a pair's labelled images, by the EMA discriminator", pair_labels, needs_unlabelled=True
    ),
    "pseudo_labels": AuxiliaryLoss(
        "confident classes of the EMA discriminator (FixMatch)", pseudo_labels, needs_unlabelled=True
    ),
    "entropy": AuxiliaryLoss("confident classes of unlabelled images", entropy, needs_unlabelled=True),
}


class Classifying(Protocol):
    """A discriminator with classes, by domain."""

    def classify(self, images: Images) -> Images:
        """Return the logits of the classes [B, K]."""
        ...

    def features(self, images: Images) -> Images:
        """Return the features before the logits [B, F]."""
        ...


@dataclass(frozen=True)
class AuxiliaryInputs:
    """Images of a step by domain, and the networks that classify them."""

    discriminator: Classifying
    ema_discriminator: Classifying
    confidence: float
    """Least probability at which a class predicted by the EMA discriminator is a pseudo label."""
    real: Images
    """[B, C, H, W], not augmented: inputs of the EMA."""
    augmented: Images
    """The same, augmented: inputs of the discriminator."""
    labels: Images
    """[B], of the labelled domains alone."""
    generated: Images
    """[B, C, H, W], generated pairs, detached."""

    @cached_property
    def unlabelled(self) -> Images:
        """The discriminator's logits of the unlabelled images."""
        return self.discriminator.classify(self.without_labels(self.augmented))

    def without_labels(self, images: Images) -> Images:
        """Return the images of unlabelled domains."""
        return {name: batch for name, batch in images.items() if name not in self.labels}

    @torch.no_grad()
    def ema_probabilities(self, images: Images) -> Images:
        """Return the EMA's probabilities of the classes of images."""
        return {name: logits.float().softmax(1) for name, logits in self.ema_discriminator.classify(images).items()}


def label_distribution(labelling: str, logits: Tensor) -> Categorical | Bernoulli:
    """Return the distribution over labels that logits [B, K] parametrise; its `probs` are [B, K]."""
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
