"""The discriminator of an experiment: its table, what it is shown, and what keeps it in bounds."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from training.architectures import DISCRIMINATORS
from training.config.fields import STRICT, Positive, Weight, listed, one_of
from training.config.network import ReaderConfig
from training.objectives.losses import LOSSES
from training.objectives.penalties import PENALTIES
from training.pixels.augmentations import AUGMENTATIONS


@dataclass(frozen=True, config=STRICT)
class PenaltyConfig:
    """A penalty on the discriminator's gradient."""

    name: Annotated[str, one_of(PENALTIES)]
    """Which penalty."""
    weight: Weight
    """Its weight in the discriminator's loss."""
    every: Positive = 1
    """It is computed every so many steps, and weighted so many times more."""


@dataclass(frozen=True, config=STRICT)
class DiscriminatorConfig(ReaderConfig):
    """The coupled discriminator, its optimiser and its penalties."""

    table: Annotated[str, one_of(DISCRIMINATORS), listed(DISCRIMINATORS)] = "digit"
    """Table of layers."""
    updates: Positive = 1
    """How often it is updated in a step."""
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """What a loss of labels calls real images; below 1 is one-sided smoothing (Salimans et al. 2016)."""
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """What it calls drawn images; above 0 makes the smoothing two-sided."""
    penalty: Annotated[str, one_of(["none", *PENALTIES]), listed(PENALTIES)] = "none"
    """Penalty on its gradient at images."""
    penalty_weight: Weight = 1.0
    """Its weight."""
    penalty_every: Positive = 8
    """It is computed every so many steps, and weighted so many times more (Karras et al. 2020)."""
    penalties: tuple[PenaltyConfig, ...] = ()
    """Penalties beside that one, each with a weight of its own."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """How what it sees is altered, real and drawn alike (Zhao et al. 2020); domains can forbid some."""
    noise: Weight = 0.0
    """Standard deviation of the noise on all that it sees, at the first step (Arjovsky & Bottou 2017)."""
    noise_until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the steps over which the noise falls linearly to nothing."""
    clip_weights: Annotated[float, Field(gt=0)] | None = None
    """Greatest absolute value of its weights, kept after every update (Arjovsky et al. 2017)."""

    @model_validator(mode="after")
    def _each_penalty_once(self) -> Self:
        asked = [penalty.name for penalty in self.all_penalties]
        if len(set(asked)) < len(asked):
            raise ValueError(f"penalties repeat: {asked}")
        return self

    @property
    def all_penalties(self) -> tuple[PenaltyConfig, ...]:
        """Every penalty that is asked for."""
        if self.penalty == "none":
            return self.penalties
        return (PenaltyConfig(self.penalty, self.penalty_weight, self.penalty_every), *self.penalties)

    def check_labels(self, loss: str) -> None:
        """Raise ValueError where the loss of that name has no labels, and they are not what it has."""
        labels = (self.real_label, self.fake_label)
        if labels != (1.0, 0.0) and LOSSES[loss].smoothed is None:
            labelled = [name for name, one in LOSSES.items() if one.smoothed]
            raise ValueError(
                f"discriminator.real_label, fake_label = {labels}: loss {loss!r} has no labels; "
                f"{', '.join(labelled)} have"
            )
