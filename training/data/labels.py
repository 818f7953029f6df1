"""Labels of a source: classes, or attributes."""

from __future__ import annotations

from collections.abc import Mapping

import datasets
import torch
from torch import Tensor

from training.config.data import DomainConfig, Use
from training.data.listing import as_called
from training.errors import DataError

MISSING = -1  # the hub's number of no class


def read_labels(table: datasets.Dataset, domain: DomainConfig) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return classes, int64 [N], or attributes [N, K] of 1 and 0; and what the source calls the classes.

    None if the source has no labels, or not of every image. Raises DataError if a column
    holds something else, and where one of attributes is missing.
    """
    if domain.label_columns:
        return _attributes(table, domain), ()
    classes = _classes(table, domain)
    feature = None if classes is None else table.features[domain.label_column]
    return _merge(classes, tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else (), domain)


def require_labels(labels: Tensor | None, domain: DomainConfig, use: Use) -> Tensor:
    """Return the labels of a domain's images for one use. Raises DataError if there are none."""
    if labels is None:
        raise DataError(
            f"domain {domain.name}: lessons and classifiers need classes, and split "
            f"{domain.split_for(use)!r} of {domain.source!r} has no column {domain.label_column!r} that "
            "gives every image one: whole numbers from 0, at least two of them"
        )
    return labels


def class_mismatch(names: Mapping[str, tuple[str, ...]]) -> str:
    """Return which class names differ between domains; empty if they agree.

    Classes are compared by their numbers, so that others at the same numbers would count as the same.
    """
    known = [(name, classes) for name, classes in names.items() if classes]
    for name, classes in known[1:]:
        first, theirs = known[0]
        if len(classes) != len(theirs):
            return f"domain {name} has {len(classes)} classes and {first} {len(theirs)}"
        for number, (own, other) in enumerate(zip(classes, theirs, strict=True)):
            if not _is_called_alike(own, other):
                return f"class {number} of domain {name} is {own!r}, and that of {first} {other!r}"
    return ""


def _classes(table: datasets.Dataset, domain: DomainConfig) -> Tensor | None:
    labels = table[domain.label_column][:] if domain.label_column in table.column_names else [None]
    labels = [int(label) if isinstance(label, str) and _is_number(label) else label for label in labels]
    for label in labels:
        if not isinstance(label, int | None) or (label or 0) < MISSING:
            raise DataError(
                f"label_column {domain.label_column!r} of {domain.source!r} holds {label!r} and is "
                f"{table.features[domain.label_column]}; classes are whole numbers from 0: number them, or name "
                "another column, even one that is not there, to learn without classes"
            )
    if {None, MISSING} & set(labels) or len(set(labels)) < 2:  # as images without folders of classes have it
        return None
    return torch.tensor(labels, dtype=torch.int64)


def _merge(
    classes: Tensor | None, names: tuple[str, ...], domain: DomainConfig
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Renumber classes so that merged ones are one class, with the name of the first."""
    if classes is None or not domain.merged_classes:
        return classes, names
    if unknown := [name for merged in domain.merged_classes for name in merged if name not in names]:
        known = ", ".join(names) or f"no names, for column {domain.label_column!r} holds numbers alone"
        raise DataError(f"merged_classes names {unknown[0]!r}, and {domain.source!r} has the classes {known}")
    called = {name: merged[0] for merged in domain.merged_classes for name in merged}
    kept = tuple(name for name in names if called.get(name, name) == name)
    numbers = torch.tensor([kept.index(called.get(name, name)) for name in names])
    return numbers[classes], kept


def _is_called_alike(own: str, other: str) -> bool:
    """Compare names of classes as they are called, and numbers by their value: 07 is 7."""
    if _is_number(own) and _is_number(other):
        return int(own) == int(other)
    return as_called(own).casefold() == as_called(other).casefold()


def _is_number(name: str) -> bool:
    return name.strip().isascii() and name.strip().isdecimal()


def _attributes(table: datasets.Dataset, domain: DomainConfig) -> Tensor:
    if missing := [name for name in domain.label_columns if name not in table.column_names]:
        raise DataError(f"label_columns {missing} are not among the columns {table.column_names} of {domain.source!r}")
    columns = {name: table[name][:] for name in domain.label_columns}
    for name, values in columns.items():
        if wrong := [value for value in values if value not in (0, 1)]:
            raise DataError(
                f"label_columns: {name!r} of {domain.source!r} holds {wrong[0]!r}; attributes are true and "
                "false, or 1 and 0"
            )
    return torch.tensor(list(columns.values()), dtype=torch.int64).T
