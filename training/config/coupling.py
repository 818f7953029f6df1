"""The couplings of an experiment: which, how heavy and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.config.fields import STRICT, Positive, Weight, listed, one_of
from training.objectives.couplings import COUPLINGS


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
    asked = [coupling.name for coupling in couplings]
    if len(set(asked)) < len(asked):
        raise ValueError(f"couplings repeat: {asked}")
    for coupling in couplings:
        if COUPLINGS[coupling.name].asks == "layers" and coupling.layers > own_layers:
            raise ValueError(
                f"coupling {coupling.name!r}: layers = {coupling.layers}, and the domains have "
                f"{own_layers} of their own before the image: a smaller generator.shared_layers gives more"
            )
