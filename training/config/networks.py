"""Networks of an experiment and their losses as dataclasses: architecture, shared layers, optimiser, loss weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from training.config import STRICT, Decay, PartOfSteps, Positive, Share, Weight, check_unique, listed, one_of
from training.config.data import DomainConfig
from training.losses.adversarial import LOSSES, PENALTIES
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS
from training.losses.pixels import AUGMENTATIONS
from training.networks.layers import Architecture
from training.networks.weights import INITIALISERS, OPTIMISERS
from training.zoo import DISCRIMINATORS, ENCODERS, GENERATORS, size_mismatch


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """Fields of generators and discriminators."""

    width: Annotated[float, Field(gt=0)] = 1.0
    """Multiplier of the architecture's channels."""
    shared_layers: Annotated[int, Field(ge=0)] | None = None
    """How many layers the domains share; all but the one next to the image if unset."""
    initialisation: Annotated[str, one_of(INITIALISERS)] = "normal"
    """Initialisation of the weights."""
    initial_bias: float = 0.0
    """Initial bias of convolutions and linear layers."""
    initial_slope: float | None = None
    """Initial slope of PReLUs below zero; the architecture's if unset."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    """The optimiser's step size."""
    betas: tuple[Decay, Decay] = (0.5, 0.99)
    """Decay of adam's first and second moment; sgd's momentum is the first, rmsprop's decay the second."""
    optimiser: Annotated[str, one_of(OPTIMISERS)] = "adam"
    """Optimiser."""
    weight_decay: Weight = 0.0
    """Weight decay (L2)."""
    clip_gradients: Annotated[float, Field(gt=0)] | None = None
    """Greatest norm of the network's gradient, clipped beyond."""

    def sharable_of(self, architecture: Architecture) -> int:
        """Return how many layers could be shared."""
        return len(architecture.layers)

    def shared_of(self, architecture: Architecture) -> int:
        """Return how many layers are shared."""
        return self.sharable_of(architecture) - 1 if self.shared_layers is None else self.shared_layers


@dataclass(frozen=True, config=STRICT)
class GeneratorConfig(NetworkConfig):
    """The coupled generator, its optimiser and its average."""

    table: Annotated[str, one_of(GENERATORS), listed(GENERATORS)] = "digit"
    """Name of the architecture."""
    equal_heads: bool = False
    """Start the domains' own layers from equal weights, so that the images of a pair are equal at first."""
    start: str | None = None
    """File of an exported generator that a new run starts from, relative to the current folder.

    Of the same layers, of which it may share more.
    """
    updates: Positive = 1
    """Number of updates in a step."""
    ema: Decay = 0.999
    """Decay of the averaged generator, the EMA that is sampled, measured and exported."""
    choices: Annotated[int, Field(ge=0)] = 0
    """How many of a latent's first values become a one-hot code of the greatest: no image lies between two clusters."""

    def own_of(self, architecture: Architecture) -> int:
        """Return how many layers are a domain's own, before the one that makes the image."""
        return max(0, len(architecture.layers) - 1 - self.shared_of(architecture))


@dataclass(frozen=True, config=STRICT)
class CoupledEncoderConfig(NetworkConfig):
    """Fields of discriminators and encoders."""

    own_last_layers: Annotated[int, Field(ge=0)] = 0
    """How many of the last layers are each domain's own, after the shared ones."""

    def sharable_of(self, architecture: Architecture) -> int:
        """Return how many layers could be shared."""
        return len(architecture.layers) - self.own_last_layers


@dataclass(frozen=True, config=STRICT)
class EncoderConfig(CoupledEncoderConfig):
    """The encoder of the coupling loss `cycle`, images -> latents; it is trained beside the generator."""

    table: Annotated[str, one_of(ENCODERS), listed(ENCODERS)] = "digit"
    """Name of the architecture."""


def check_network(
    name: str,
    config: GeneratorConfig | DiscriminatorConfig | EncoderConfig,
    architectures: Mapping[str, Architecture],
    size: tuple[int, int],
    channels: Collection[int],
    batch_size: int,
) -> None:
    """Raise ValueError if the network's architecture does not fit such images, or a batch of so many."""
    architecture = architectures[config.table]
    layers = len(architecture.layers)
    shared, sharable = config.shared_of(architecture), config.sharable_of(architecture)
    if not 0 <= shared <= sharable:
        raise ValueError(
            f"{name}.shared_layers = {shared}: its table has {layers} layers"
            + (f", {layers - sharable} of them own_last_layers" if sharable < layers else "")
        )
    if shared == sharable and len(channels) > 1:
        raise ValueError(
            f"{name}.shared_layers = {shared}: grey and RGB domains cannot share the layer next to the image"
        )
    if config.initial_slope is not None and all(layer.activation != "prelu" for layer in architecture.layers):
        raise ValueError(f"{name}.initial_slope = {config.initial_slope}: its table has no PReLU")
    if wrong := size_mismatch(architectures, config.table, size):
        raise ValueError(f"{name}.table = {config.table!r}: {wrong}")
    if batch_size == 1 and any(layer.norm == "batch" for layer in architecture.layers):
        raise ValueError(f"batch_size = 1: the {name} normalises over its batch, which takes 2 or more")


@dataclass(frozen=True, config=STRICT)
class PenaltyConfig:
    """A penalty on the discriminator's gradient."""

    name: Annotated[str, one_of(PENALTIES)]
    """Name of the penalty."""
    weight: Weight
    """Its weight in the discriminator's loss."""
    every: Positive = 1
    """Steps between computations; the weight is multiplied by it."""
    remains: Share = 1.0
    """Share of its weight to which it falls along half a cosine (Huang et al. 2024, R3GAN)."""
    until: PartOfSteps = 1.0
    """Share of the steps over which it falls."""

    def weight_after(self, done: float) -> float:
        """Return the weight of one computation once a share of the steps is done."""
        fallen = (1.0 - math.cos(math.pi * min(done / self.until, 1.0))) / 2.0
        return self.every * self.weight * (1.0 - fallen * (1.0 - self.remains))


@dataclass(frozen=True, config=STRICT)
class DiscriminatorConfig(CoupledEncoderConfig):
    """The coupled discriminator, its optimiser and its penalties."""

    table: Annotated[str, one_of(DISCRIMINATORS), listed(DISCRIMINATORS)] = "digit"
    """Name of the architecture."""
    first_width: Annotated[float, Field(gt=0)] = 1.0
    """Further multiplier of its first layer's channels: with fewer than a window has values, it sees few flaws."""
    updates: Positive = 1
    """Number of updates in a step."""
    alone: Annotated[int, Field(ge=0)] = 0
    """First steps in which it learns alone, as a generator that starts from exported weights is ahead of it."""
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """Label of real images, in losses that have labels; below 1 is one-sided smoothing (Salimans et al. 2016)."""
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Label of generated images; above 0 makes the smoothing two-sided."""
    penalty: Annotated[str, one_of(["none", *PENALTIES]), listed(PENALTIES)] = "none"
    """Penalty on its gradient at images."""
    penalty_weight: Weight = 1.0
    """Its weight."""
    penalty_every: Positive = 8
    """Steps between computations; the weight is multiplied by it (Karras et al. 2020)."""
    penalty_remains: Share = 1.0
    """Share of its weight to which it falls along half a cosine (Huang et al. 2024, R3GAN)."""
    penalty_until: PartOfSteps = 1.0
    """Share of the steps over which it falls."""
    penalties: tuple[PenaltyConfig, ...] = ()
    """Penalties beside that one, each with a weight of its own."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations of its inputs, real and generated alike (Zhao et al. 2020); domains can forbid some."""
    noise: Weight = 0.0
    """Standard deviation of the noise on its inputs, at the first step (Arjovsky & Bottou 2017)."""
    noise_until: PartOfSteps = 1.0
    """Share of the steps over which the noise falls linearly to nothing."""
    clip_weights: Annotated[float, Field(gt=0)] | None = None
    """Greatest absolute value of its weights, kept after every update (Arjovsky et al. 2017)."""

    @model_validator(mode="after")
    def _each_penalty_once(self) -> Self:
        check_unique("penalties", [penalty.name for penalty in self.all_penalties])
        return self

    @property
    def all_penalties(self) -> tuple[PenaltyConfig, ...]:
        """All penalties of the experiment."""
        if self.penalty == "none":
            return self.penalties
        schedule = self.penalty_every, self.penalty_remains, self.penalty_until
        return (PenaltyConfig(self.penalty, self.penalty_weight, *schedule), *self.penalties)

    def check_labels(self, loss: str) -> None:
        """Raise ValueError if labels are set for a loss that has none."""
        labels = (self.real_label, self.fake_label)
        if labels != (1.0, 0.0) and LOSSES[loss].smoothed is None:
            labelled = [name for name, one in LOSSES.items() if one.smoothed]
            raise ValueError(
                f"discriminator.real_label, fake_label = {labels}: loss {loss!r} has no labels; "
                f"{', '.join(labelled)} have"
            )


@dataclass(frozen=True, config=STRICT)
class CouplingConfig:
    """A coupling loss: holds the images of a pair together, beside shared layers."""

    name: Annotated[str, one_of(COUPLINGS), listed(COUPLINGS)]
    """Name of the coupling loss."""
    weight: Weight
    """Its weight in the generator's loss."""
    classifiers: str = "couplers"
    """Folder of the classifiers of `semantic` and `classes`; not those that evaluate the pairs."""
    feature_network: str = "efficientnet_lite0"
    """Of `content` and `style`: efficientnet_lite0, efficientnet_lite2, or VGG19 by a hub name or a file."""
    layers: Positive = 1
    """Number of the domains' own generator layers that `weights` and `features` compare, from the first on."""
    until: PartOfSteps | None = None
    """Share of the steps over which the weight falls linearly to nothing; constant if unset."""
    remains: Share = 0.0
    """Share of the weight below which it does not fall."""

    def weight_after(self, done: float) -> float:
        """Return the weight once a share of the steps is done."""
        return self.weight * (max(1.0 - done / self.until, self.remains) if self.until else 1.0)


def check_couplings(couplings: Sequence[CouplingConfig], own_layers: int) -> None:
    """Raise ValueError if couplings repeat, or compare more layers than the domains have of their own."""
    check_unique("couplings", [coupling.name for coupling in couplings])
    for coupling in couplings:
        if COUPLINGS[coupling.name].requires == "layers" and coupling.layers > own_layers:
            raise ValueError(
                f"coupling {coupling.name!r}: layers = {coupling.layers}, and the domains have "
                f"{own_layers} of their own before the image: a smaller generator.shared_layers gives more"
            )


@dataclass(frozen=True, config=STRICT)
class AuxiliaryLossConfig:
    """An auxiliary loss of the discriminator."""

    name: Annotated[str, one_of(AUXILIARY_LOSSES)]
    """Name of the auxiliary loss."""
    weight: Weight
    """Its weight in the discriminator's loss."""
    begins: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps that pass before it begins."""


@dataclass(frozen=True, config=STRICT)
class ClassifierConfig:
    """The classes that a discriminator with auxiliary losses predicts, and its EMA."""

    classes: Annotated[int, Field(ge=2)] = 10
    """Number of classes; labels are 0 to one less."""
    batch_size: Positive | None = None
    """Images of each domain for the auxiliary losses of a step; `batch_size` of the experiment if unset."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations of the discriminator's images in auxiliary losses; the EMA's images have none."""
    confidence: Share = 0.95
    """Least probability at which a class predicted by the EMA discriminator is a pseudo label."""
    ema: Decay = 0.999
    """Decay of the EMA discriminator, which gives pseudo labels, is measured and exported; 0: no average."""


def check_auxiliary_losses(
    lessons: Sequence[AuxiliaryLossConfig], domains: Sequence[DomainConfig], shared_layers: int, own_last_layers: int
) -> None:
    """Raise ValueError if auxiliary losses, labelled domains and the discriminator do not fit together."""
    names = [lesson.name for lesson in lessons]
    labelled = [domain.name for domain in domains if domain.labelled]
    check_unique("lessons", names)
    if bool(names) != bool(labelled):
        raise ValueError(
            f"lessons are {names or 'none'} and labelled domains {labelled or 'none'}: each needs the other"
        )
    if names and (own_last_layers or not shared_layers):
        raise ValueError(
            f"discriminator.shared_layers = {shared_layers}, own_last_layers = {own_last_layers}: lessons "
            "need a last layer that is shared, so 1 or more and 0"
        )
    if attributed := [domain.name for domain in domains if domain.labelled and domain.label_columns]:
        raise ValueError(f"labelled domains {attributed} have label_columns, and lessons are of classes")
    unlabelled = [lesson for lesson in names if AUXILIARY_LOSSES[lesson].needs_unlabelled]
    if unlabelled and all(domain.labelled for domain in domains):
        raise ValueError(f"lessons {unlabelled} need a domain that is not labelled")
