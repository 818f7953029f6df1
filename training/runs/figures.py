"""Figures: panels of curves, as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.files import write_whole

Curve = tuple[list[Any], list[float]]  # places along the axis, numbers or words, and the values there
Panels = Mapping[str, Mapping[str, Curve]]  # by title, then by label

COLUMNS = 3
SIDE = (4.4, 3.0)  # inches of a panel, wide and high
FEW = 6  # places, each of which is named


def save_curves(panels: Panels, across: str, file: Path) -> None:
    """Write a PNG with a panel for each title, whose curves run along an axis named `across`.

    Panels share their legend: a label has one colour in all of them. Where there is one label it needs none.
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(columns * SIDE[0], rows * SIDE[1]), dpi=100, layout="constrained")
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    colours = {label: f"C{number}" for number, label in enumerate(labels)}
    drawn = {}
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set(title=title, xlabel=across)
        axes.grid(alpha=0.3)
        for label, (places, values) in curves.items():
            marker = "o" if len(places) < 20 else ""
            (drawn[label],) = axes.plot(places, values, color=colours[label], marker=marker, markersize=3)
        if len(ticks := {place for places, _ in curves.values() for place in places}) <= FEW:
            axes.set_xticks(sorted(ticks))
    if len(labels) > 1:
        figure.legend([drawn[label] for label in labels], labels, loc="outside upper center")
    write_whole(file, lambda aside: figure.savefig(aside, format="png"))


def by_metric(runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """Turn the curves of runs, by metric, into panels: one for each metric that any run has."""
    metrics = dict.fromkeys(metric for curves in runs.values() for metric in curves)
    return {metric: {run: runs[run][metric] for run in runs if metric in runs[run]} for metric in metrics}
