"""A recipe as frozen dataclasses, checked when they are built; here the types that their fields share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, ConfigDict, Field
from tyro.conf import arg


class Described(Protocol):
    """Has a one-sentence description."""

    @property
    def about(self) -> str:
        """The description."""


def one_of(choices: Collection[str]) -> AfterValidator:
    """Make the check of a field that takes one of some names."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return AfterValidator(check)


def listed(choices: Mapping[str, Described]) -> object:
    """Make the help of a field list its choices, a line each."""
    lines = [f"- {name}: {choice.about}" for name, choice in choices.items()]
    return arg(help_behavior_hint=lambda default: "\n".join([f"(default: {default})", *lines]))


def check_unique(what: str, names: Sequence[str]) -> None:
    """Raise ValueError if a name is there twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"{what} repeat: {names}")


Precision = Literal["32-true", "bf16-mixed"]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PartOfSteps = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
