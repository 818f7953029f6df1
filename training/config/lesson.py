"""What the discriminator learns beside judging: lessons, and the classifier that they teach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.config.domain import DomainConfig
from training.config.fields import STRICT, Decay, Positive, Share, Weight, one_of
from training.objectives.lessons import LESSONS
from training.pixels.augmentations import AUGMENTATIONS


@dataclass(frozen=True, config=STRICT)
class LessonConfig:
    """A cost of the discriminator's classes or features."""

    name: Annotated[str, one_of(LESSONS)]
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
    asked = [lesson.name for lesson in lessons]
    labelled = [domain.name for domain in domains if domain.labelled]
    if len(set(asked)) < len(asked):
        raise ValueError(f"lessons repeat: {asked}")
    if bool(asked) != bool(labelled):
        raise ValueError(
            f"lessons are {asked or 'none'} and labelled domains {labelled or 'none'}: each needs the other"
        )
    if asked and (own_last_layers or not shared_layers):
        raise ValueError(
            f"discriminator.shared_layers = {shared_layers}, own_last_layers = {own_last_layers}: lessons "
            "need a last layer that is shared, so 1 or more and 0"
        )
    if attributed := [domain.name for domain in domains if domain.labelled and domain.label_columns]:
        raise ValueError(f"labelled domains {attributed} have label_columns, and lessons teach classes")
    unlabelled = [lesson for lesson in asked if LESSONS[lesson].needs_unlabelled]
    if unlabelled and all(domain.labelled for domain in domains):
        raise ValueError(f"lessons {unlabelled} need a domain that is not labelled")
