"""The points of a sweep: one experiment with other values in some of its fields."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.config.experiment import EXPERIMENT, Experiment, parse_experiment
from training.errors import ConfigError

Point = Mapping[str, Any]  # a value for each field that is swept over


def read_points(over: Sequence[str]) -> list[Point]:
    """Return every combination of the values of fields, each given as generator.shared_layers=0,1,2.

    Values are those of JSON; what is none is a word. Raises ConfigError, naming what is wrong.
    """
    axes = [_read_axis(text) for text in over]
    fields = [field for field, _ in axes]
    if not fields or len(set(fields)) < len(fields):
        raise ConfigError(f"over = {fields}: name one field or more, each once")
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(v for _, v in axes))]


def move(experiment: Experiment, point: Point) -> Experiment:
    """Return the experiment with the values of the point in its fields. Raises ConfigError."""
    values = EXPERIMENT.dump_python(experiment, mode="json")
    for field, value in point.items():
        *way, last = [int(part) if part.isdecimal() else part for part in field.split(".")]
        holder = values
        try:
            for part in way:
                holder = holder[part]
            holder[last] = value
        except (LookupError, TypeError) as error:
            raise ConfigError(f"over = {field!r}: an experiment has no such field") from error
    return parse_experiment(values)


def _read_axis(text: str) -> tuple[str, list[Any]]:
    field, _, values = text.partition("=")
    if not (field and values):
        raise ConfigError(f"over = {text!r}: must be FIELD=VALUE,VALUE, as in generator.shared_layers=0,1,2")
    try:
        return field, json.loads(f"[{values}]")
    except json.JSONDecodeError:
        return field, [_read(value) for value in values.split(",")]


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
