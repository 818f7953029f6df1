"""A domain of an experiment: which images it has, and how they are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from service.metadata import Name
from training.augmentations import AUGMENTATIONS
from training.domains import TRANSFORMS
from training.fields import STRICT, one_of

NO_IMAGES = frozenset({"name", "description", "forbidden_augmentations", "test_split"})  # change none


@dataclass(frozen=True, config=STRICT)
class DomainConfig:
    """One image distribution: a source, a split of it and a transform."""

    name: Name
    """Lower-case name; the exported graph's output is called so."""
    source: str
    """Hub name (ylecun/mnist) or folder; a folder of its last part below $COGAN_DATA comes first."""
    description: str = ""
    """A sentence for those who see the images."""
    margin: Annotated[int, Field(ge=0)] = 0
    """Black pixels added on each side before images are resized; 3 make USPS lie as MNIST does."""
    transform: Annotated[str, one_of(TRANSFORMS)] = "identity"
    """What makes this domain's images of the source's."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    image_column: str = "image"
    """Column of the source that holds the images."""
    label_column: str = "label"
    """Column that holds the classes, where there is one; only measuring uses it."""
    forbidden_augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations that would make another domain's images of these: color, of a negative."""
    train_split: str = "train"
    """Split that the domain learns from."""
    test_split: str = "test"
    """Split that it is measured against."""

    def image_fields(self, *but: str) -> dict[str, Any]:
        """Return what its training images depend on: fields not as by default, `but` for some."""
        fields: dict[str, Any] = _DOMAIN.dump_python(self, mode="json", exclude_defaults=True)
        return {name: value for name, value in fields.items() if name not in NO_IMAGES.union(but)}


_DOMAIN = TypeAdapter(DomainConfig)
