"""Domains of an experiment as dataclasses: sources, preprocessing, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import nn

from service.metadata import CLASSES, LATENT, Name
from training.config import STRICT, Positive, check_unique, one_of
from training.losses.pixels import AUGMENTATIONS, TRANSFORMS

Use = Literal["train", "test"]  # to learn from, to measure against
RESERVED = {LATENT, CLASSES, *dir(nn.ModuleDict())}  # taken in exported graphs and in networks
# fields that change none of the images which a classifier learns
NO_IMAGES = frozenset(
    {"name", "description", "count", "prune", "labelled", "balanced", "forbidden_augmentations", "test_split"}
    | {"paired_columns"}
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SourceConfig:
    """Images to be read: a source, its splits, and which of its columns and rows count."""

    source: Annotated[str, Field(min_length=1)]
    """Folder, or hub name (ylecun/mnist), which is looked for below $COGAN_DATA by its last part first."""
    configuration: str | None = None
    """Configuration of a source that has several: cropped_digits, of SVHN."""
    train_split: str = "train"
    """Split to learn from; train[:50%] is half of one."""
    test_split: str = "test"
    """Split to measure against."""
    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of train_split that is measured against instead, and not learned from; the same in every run."""
    group: str | None = None
    """Column whose equal values go to one domain together, family of letters; else each row goes alone."""
    paired_columns: bool = True
    """Whether the images of a row are pairs, so that a row goes to one domain."""
    image_column: str = "image"
    """Column of the source that holds the images; rows without one do not count."""
    where: dict[str, bool | int | str] = field(default_factory=dict, hash=False)
    """Values that columns must have for a row to count, Eyeglasses = true; empty for all rows."""

    def split_for(self, use: Use) -> str:
        """Return the split that the rows for one use are of."""
        return self.train_split if use == "train" or self.held_out else self.test_split

    @property
    def needed_columns(self) -> set[str]:
        """Columns that the source must have."""
        return {self.image_column, *self.where, *([self.group] if self.group else [])}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PatchesConfig(SourceConfig):
    """Patches blended into a domain's images: |patch - image|, as MNIST-M is made."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes which patch each image gets."""


@dataclass(frozen=True, config=STRICT)
class PruneConfig:
    """Pruning of a domain's training images by a classifier."""

    below: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Those whose most probable class has less than this probability for the domain's classifier."""
    classifiers: str = "classifiers"
    """Folder of that classifier, which `training.train_classifier` made."""


@dataclass(frozen=True, config=STRICT)
class DomainConfig(SourceConfig):
    """A domain: an image distribution, from a source, its preprocessing and a transform."""

    name: Name
    """Lower-case name, also of the exported graph's output."""
    description: str = ""
    """A sentence for those who see the images."""
    margin: Annotated[int, Field(ge=0, le=1024)] = 0
    """Black pixels added on each side before images are resized; 3 make USPS lie as MNIST does."""
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of an image's middle that is kept, in the network's shape; if unset, the whole image is stretched."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    patches: tuple[PatchesConfig, ...] = ()
    """Sources of patches that are blended into the images, one after another."""
    transform: Annotated[str, one_of(TRANSFORMS)] = "identity"
    """Transform of the source's images into the domain's."""
    count: Positive | None = None
    """How many images it learns from, before pruning, sampled by the seed; all if unset."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """Images to leave out, of which a classifier is not confident."""
    label_column: str = "label"
    """Column of the classes, if there is one."""
    label_columns: tuple[str, ...] = ()
    """Columns of yes and no, in its place: attributes, any of which an image may have."""
    merged_classes: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()
    """Names of classes that count as one, [["c", "C"]], for they look the same; the first is its name."""
    labelled: bool = False
    """Whether auxiliary losses use its labels; otherwise only measuring does."""
    balanced: bool = False
    """Whether classes are sampled equally often, of a labelled domain; otherwise images are."""
    forbidden_augmentations: tuple[Annotated[str, one_of(AUGMENTATIONS)], ...] = ()
    """Augmentations that would turn these images into another domain's, such as color for day and night."""

    @property
    def needed_columns(self) -> set[str]:
        """Columns that the source must have."""
        return super().needed_columns | set(self.label_columns)

    def image_fields(self, *but: str) -> dict[str, Any]:
        """Return what its training images depend on: fields not as by default, `but` for some."""
        fields: dict[str, Any] = DOMAIN.dump_python(self, mode="json", exclude_defaults=True)
        return {name: value for name, value in fields.items() if name not in NO_IMAGES.union(but)}


DOMAIN = TypeAdapter(DomainConfig)


def check_domains(domains: Sequence[DomainConfig]) -> None:
    """Raise ValueError if names, label_columns and labels do not fit together."""
    names = [domain.name for domain in domains]
    check_unique("domain names", names)
    if reserved := RESERVED & set(names):
        raise ValueError(f"domain names {sorted(reserved)} have a meaning of their own: take others")
    for domain in domains:
        names = [name for merged in domain.merged_classes for name in merged]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"domain {domain.name}: merged_classes names {repeated} more than once")
    columns = {domain.name: domain.label_columns for domain in domains}
    if len(set(columns.values())) > 1:
        raise ValueError(f"label_columns differ, {columns}: pairs are compared by those of all domains")
    if unknown := [domain.name for domain in domains if domain.balanced and not domain.labelled]:
        raise ValueError(f"balanced domains {unknown} are not labelled, so that their classes are unknown to training")
