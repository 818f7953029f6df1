"""Networks of an experiment as dataclasses: architecture, shared layers, optimiser."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Decay, Positive, Weight, listed, one_of
from training.losses.adversarial import LOSSES, PENALTIES
from training.losses.pixels import AUGMENTATIONS
from training.networks.layers import Table
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

    def sharable_of(self, table: Table) -> int:
        """Return how many of a table's layers could be shared."""
        return len(table.layers)

    def shared_of(self, table: Table) -> int:
        """Return how many of a table's layers are shared."""
        return self.sharable_of(table) - 1 if self.shared_layers is None else self.shared_layers


@dataclass(frozen=True, config=STRICT)
class GeneratorConfig(NetworkConfig):
    """The coupled generator, its optimiser and its average."""

    table: Annotated[str, one_of(GENERATORS), listed(GENERATORS)] = "digit"
    """Name of the architecture."""
    updates: Positive = 1
    """Number of updates in a step."""
    ema: Decay = 0.999
    """Decay of the averaged generator, the EMA that is sampled, measured and exported."""

    def own_of(self, table: Table) -> int:
        """Return how many of a table's layers are a domain's own, before the one that makes the image."""
        return max(0, len(table.layers) - 1 - self.shared_of(table))


@dataclass(frozen=True, config=STRICT)
class ReaderConfig(NetworkConfig):
    """Fields of discriminators and encoders."""

    own_last_layers: Annotated[int, Field(ge=0)] = 0
    """How many of the last layers are each domain's own, after the shared ones."""

    def sharable_of(self, table: Table) -> int:
        """Return how many of a table's layers could be shared."""
        return len(table.layers) - self.own_last_layers


@dataclass(frozen=True, config=STRICT)
class EncoderConfig(ReaderConfig):
    """The encoder of the coupling loss `cycle`, images -> latents; it is trained beside the generator."""

    table: Annotated[str, one_of(ENCODERS), listed(ENCODERS)] = "digit"
    """Name of the architecture."""


def check_layers(
    name: str,
    config: NetworkConfig,
    tables: dict[str, Table],
    table_name: str,
    size: tuple[int, int],
    channels: Collection[int],
) -> None:
    """Raise ValueError if the network's architecture does not fit such images."""
    table = tables[table_name]
    shared, sharable, layers = config.shared_of(table), config.sharable_of(table), len(table.layers)
    if not 0 <= shared <= sharable:
        raise ValueError(
            f"{name}.shared_layers = {shared}: its table has {layers} layers"
            + (f", {layers - sharable} of them own_last_layers" if sharable < layers else "")
        )
    if shared == sharable and len(channels) > 1:
        raise ValueError(
            f"{name}.shared_layers = {shared}: grey and RGB domains cannot share the layer next to the image"
        )
    if config.initial_slope is not None and all(layer.activation != "prelu" for layer in table.layers):
        raise ValueError(f"{name}.initial_slope = {config.initial_slope}: its table has no PReLU")
    if wrong := size_mismatch(tables, table_name, size):
        raise ValueError(f"{name}.table = {table_name!r}: {wrong}")


def check_batch(name: str, table: Table, batch_size: int) -> None:
    """Raise ValueError if the network has batch normalisation, and a batch is a single image."""
    if batch_size == 1 and any(layer.norm == "batch" for layer in table.layers):
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


@dataclass(frozen=True, config=STRICT)
class DiscriminatorConfig(ReaderConfig):
    """The coupled discriminator, its optimiser and its penalties."""

    table: Annotated[str, one_of(DISCRIMINATORS), listed(DISCRIMINATORS)] = "digit"
    """Name of the architecture."""
    updates: Positive = 1
    """Number of updates in a step."""
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
    penalties: tuple[PenaltyConfig, ...] = ()
    """Penalties beside that one, each with a weight of its own."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations of its inputs, real and generated alike (Zhao et al. 2020); domains can forbid some."""
    noise: Weight = 0.0
    """Standard deviation of the noise on its inputs, at the first step (Arjovsky & Bottou 2017)."""
    noise_until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the steps over which the noise falls linearly to nothing."""
    clip_weights: Annotated[float, Field(gt=0)] | None = None
    """Greatest absolute value of its weights, kept after every update (Arjovsky et al. 2017)."""

    @model_validator(mode="after")
    def _each_penalty_once(self) -> Self:
        names = [penalty.name for penalty in self.all_penalties]
        if len(set(names)) < len(names):
            raise ValueError(f"penalties repeat: {names}")
        return self

    @property
    def all_penalties(self) -> tuple[PenaltyConfig, ...]:
        """All penalties of the experiment."""
        if self.penalty == "none":
            return self.penalties
        return (PenaltyConfig(self.penalty, self.penalty_weight, self.penalty_every), *self.penalties)

    def check_labels(self, loss: str) -> None:
        """Raise ValueError if the loss of that name has no labels, and they are not what it has."""
        labels = (self.real_label, self.fake_label)
        if labels != (1.0, 0.0) and LOSSES[loss].smoothed is None:
            labelled = [name for name, one in LOSSES.items() if one.smoothed]
            raise ValueError(
                f"discriminator.real_label, fake_label = {labels}: loss {loss!r} has no labels; "
                f"{', '.join(labelled)} have"
            )
