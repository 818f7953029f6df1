"""Coupling losses, auxiliary losses and the classifier of an experiment, as dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.config.data import DomainConfig
from training.config.fields import STRICT, Decay, Positive, Share, Weight, listed, one_of
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS
from training.losses.pixels import AUGMENTATIONS


@dataclass(frozen=True, config=STRICT)
class CouplingConfig:
    """A coupling loss: holds the images of a pair together, beside shared layers."""

    name: Annotated[str, one_of(COUPLINGS), listed(COUPLINGS)]
    """Name of the coupling loss."""
    weight: Weight
    """Its weight in the generator's loss."""
    classifiers: str = "couplers"
    """Folder of the classifiers of `semantic`; not those that evaluate the pairs."""
    feature_network: str = "efficientnet_lite0"
    """Of `content` and `style`: efficientnet_lite0, efficientnet_lite2, or VGG19 by a hub name or a file."""
    layers: Positive = 1
    """How many of the domains' own generator layers `weights` and `features` compare, from the first on."""
    until: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the steps over which the weight falls linearly to nothing; constant if unset."""
    remains: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the weight below which it does not fall."""

    def weight_after(self, done: float) -> float:
        """Return the weight once a share of the steps is done."""
        return self.weight * (max(1.0 - done / self.until, self.remains) if self.until else 1.0)


def check_couplings(couplings: Sequence[CouplingConfig], own_layers: int) -> None:
    """Raise ValueError if couplings repeat, or compare more layers than the domains have of their own."""
    names = [coupling.name for coupling in couplings]
    if len(set(names)) < len(names):
        raise ValueError(f"couplings repeat: {names}")
    for coupling in couplings:
        if COUPLINGS[coupling.name].asks == "layers" and coupling.layers > own_layers:
            raise ValueError(
                f"coupling {coupling.name!r}: layers = {coupling.layers}, and the domains have "
                f"{own_layers} of their own before the image: a smaller generator.shared_layers gives more"
            )


@dataclass(frozen=True, config=STRICT)
class LessonConfig:
    """An auxiliary loss of the discriminator."""

    name: Annotated[str, one_of(AUXILIARY_LOSSES)]
    """Name of the auxiliary loss."""
    weight: Weight
    """Its weight in the discriminator's loss."""
    begins: Share = 0.0
    """Share of the steps that pass before it begins."""


@dataclass(frozen=True, config=STRICT)
class ClassifierConfig:
    """The classes that a discriminator with auxiliary losses predicts, and its EMA."""

    classes: Annotated[int, Field(ge=2)] = 10
    """How many classes there are: the labels are 0 to one less."""
    batch_size: Positive | None = None
    """Images of each domain for the auxiliary losses of a step; `batch_size` of the experiment if unset."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations of the discriminator's images in auxiliary losses; the EMA's images have none."""
    confidence: Share = 0.95
    """Least probability at which a class predicted by the EMA discriminator is a pseudo label."""
    ema: Decay = 0.999
    """Decay of the EMA discriminator, which gives pseudo labels, is measured and exported; 0: no average."""


def check_lessons(
    lessons: Sequence[LessonConfig], domains: Sequence[DomainConfig], shared_layers: int, own_last_layers: int
) -> None:
    """Raise ValueError if auxiliary losses, labelled domains and the discriminator do not fit together."""
    names = [lesson.name for lesson in lessons]
    labelled = [domain.name for domain in domains if domain.labelled]
    if len(set(names)) < len(names):
        raise ValueError(f"lessons repeat: {names}")
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
