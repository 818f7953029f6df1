"""The couplings of an experiment: which, how heavy and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.config.data import DomainConfig
from training.config.fields import STRICT, Decay, Positive, Share, Weight, listed, one_of
from training.losses.auxiliary import AUXILIARY_LOSSES
from training.losses.coupling import COUPLINGS
from training.losses.pixels import AUGMENTATIONS


@dataclass(frozen=True, config=STRICT)
class CouplingConfig:
    """What holds pairs together beside shared layers."""

    name: Annotated[str, one_of(COUPLINGS), listed(COUPLINGS)]
    """Which coupling."""
    weight: Weight
    """Its weight in the generator's loss."""
    classifiers: str = "couplers"
    """Folder of the classifiers that semantic asks; others than those that judge the pairs."""
    vgg: str = "timm/vgg19.tv_in1k"
    """Weights of VGG19 that content and style ask: a hub name, or a file of torchvision's."""
    layers: Positive = 1
    """How many of the domains' own generator layers weights and features look at, from the border on."""
    until: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the steps over which the weight falls linearly to nothing; it stays where not said."""
    remains: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the weight below which it does not fall."""

    def weight_after(self, done: float) -> float:
        """Return the weight once a share of the steps is done."""
        return self.weight * (max(1.0 - done / self.until, self.remains) if self.until else 1.0)


def check_couplings(couplings: Sequence[CouplingConfig], own_layers: int) -> None:
    """Raise ValueError where couplings repeat, or ask for more than the domains' own generator layers."""
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
    """A cost of the discriminator's classes or features."""

    name: Annotated[str, one_of(AUXILIARY_LOSSES)]
    """Which lesson."""
    weight: Weight
    """Its weight in the discriminator's loss."""
    begins: Share = 0.0
    """Share of the steps that pass before it begins."""


@dataclass(frozen=True, config=STRICT)
class ClassifierConfig:
    """Classes on the discriminator's features, and the average of both, the teacher."""

    classes: Annotated[int, Field(ge=2)] = 10
    """How many classes there are: the labels are 0 to one less."""
    batch_size: Positive | None = None
    """Images of each domain in a step's lessons; the experiment's batch_size where it is not said."""
    augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """How the student's images of a lesson are altered; the teacher sees them as they are."""
    confidence: Share = 0.95
    """Least probability at which a class that the teacher reads counts."""
    ema: Decay = 0.999
    """Decay of the averaged discriminator, which teaches, is measured and exported; 0 is the last one."""


def check_lessons(
    lessons: Sequence[LessonConfig], domains: Sequence[DomainConfig], shared_layers: int, own_last_layers: int
) -> None:
    """Raise ValueError where lessons, labelled domains and the discriminator do not fit together."""
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
        raise ValueError(f"labelled domains {attributed} have label_columns, and lessons teach classes")
    unlabelled = [lesson for lesson in names if AUXILIARY_LOSSES[lesson].needs_unlabelled]
    if unlabelled and all(domain.labelled for domain in domains):
        raise ValueError(f"lessons {unlabelled} need a domain that is not labelled")
