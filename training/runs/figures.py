"""Figures and tables of runs: panels of curves, sheets of samples, films; CSV, Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from training.files import write_whole
from training.losses.pixels import Images

Curve = tuple[list[Any], list[float]]  # x, numbers or words, and y
Panels = Mapping[str, Mapping[str, Curve]]  # by title, then by label

COLUMNS = 3
SIDE = (4.4, 3.0)  # inches of a panel, wide and high
MAX_TICKS = 6  # places along an axis that are all labelled
FRAME, LAST_FRAME = 200, 2000  # ms, of a sheet in a film
EXCERPT_FRAMES, EXCERPT_GRID = 24, (2, 4)  # at most so many frames; rows and columns of pairs


def save_curves(panels: Panels, across: str, file: Path) -> None:
    """Write a PNG with a panel for each title, whose curves run along an axis named `across`.

    Panels share their legend: a label has one colour in all of them. Where there is one label it needs none.
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(columns * SIDE[0], rows * SIDE[1]), dpi=100, layout="constrained")
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    colours = {label: f"C{number}" for number, label in enumerate(labels)}
    lines = {}
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set(title=title, xlabel=across)
        axes.grid(alpha=0.3)
        for label, (places, values) in curves.items():
            marker = "o" if len(places) < 20 else ""
            (lines[label],) = axes.plot(places, values, color=colours[label], marker=marker, markersize=3)
        if len(ticks := {place for places, _ in curves.values() for place in places}) <= MAX_TICKS:
            axes.set_xticks(sorted(ticks))
    if len(labels) > 1:
        figure.legend([lines[label] for label in labels], labels, loc="outside upper center")
    write_whole(file, lambda aside: figure.savefig(aside, format="png"))


def by_metric(runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """Turn the curves of runs, by metric, into panels: one for each metric that any run has.

    Those of domains, real_loss/digit, are in the panel of their metric, real_loss, labelled by run and domain.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for run, curves in runs.items():
        for name, curve in curves.items():
            metric, _, domain = name.partition("/")
            panels.setdefault(metric, {})[f"{run} {domain}".rstrip()] = curve
    return panels


def sheet(pairs: Images, columns: int = 1) -> Image.Image:
    """Lay pairs out as rows of a sheet, one domain beside the other, in so many columns of pairs.

    The last row is filled up with black.
    """
    wide = max(images.shape[1] for images in pairs.values())
    strips = torch.cat([images.expand(-1, wide, -1, -1) for images in pairs.values()], dim=3)
    strips = torch.cat([strips, strips.new_zeros(-len(strips) % columns, *strips.shape[1:])])
    rows = [torch.cat(list(row), dim=2) for row in strips.split(columns)]
    pixels = torch.cat(rows, dim=1).movedim(0, -1).squeeze(-1)
    return Image.fromarray(pixels.numpy())


def save_sheet(pairs: Images, file: Path, columns: int = 1, scale: int = 1) -> Image.Image:
    """Write a sheet as a PNG, its pixels enlarged `scale` times, and return it as it is without."""
    image = sheet(pairs, columns)
    enlarged = enlarge(image, scale)
    write_whole(file, lambda aside: enlarged.save(aside, format="PNG"))
    return image


def enlarge(image: Image.Image, scale: int) -> Image.Image:
    """Return an image with its pixels enlarged `scale` times."""
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def save_film(sheets: Sequence[Path], file: Path) -> None:
    """Write a GIF that shows the sheets one after the other, and the last one longer."""
    durations = [FRAME] * (len(sheets) - 1) + [LAST_FRAME]
    with Image.open(sheets[0]) as first:
        save_animation(first, map(Image.open, sheets[1:]), file, durations)  # opened by turns: there may be thousands


def save_animation(
    first: Image.Image, others: Iterable[Image.Image], file: Path, durations: int | list[int], **options: Any
) -> None:
    """Write frames as an endless animation of the format that the file's ending names; durations are in ms."""
    options |= {"format": file.suffix[1:].upper(), "save_all": True, "append_images": others, "loop": 0}
    write_whole(file, lambda aside: first.save(aside, duration=durations, **options))


def save_excerpt(sheets: Sequence[Path], pairs: int, file: Path) -> None:
    """Write an animated WebP of some of the sheets, evenly spaced, with the first of their `pairs` rows in a grid."""
    steps = min(EXCERPT_FRAMES, len(sheets))
    chosen = [sheets[round(i * (len(sheets) - 1) / max(1, steps - 1))] for i in range(steps)]
    first, *others = [_grid(one, pairs) for one in chosen]
    save_animation(first, others, file, [FRAME] * len(others) + [LAST_FRAME], quality=80)


def _grid(file: Path, pairs: int) -> Image.Image:
    """Return the first pairs of a sheet, which has one a row, in a grid."""
    rows, columns = EXCERPT_GRID
    with Image.open(file) as image:
        width, height = image.width, image.height // pairs
        grid = Image.new("RGB", (columns * width, rows * height))
        for i in range(min(rows * columns, pairs)):
            row = image.crop((0, i * height, width, (i + 1) * height))
            grid.paste(row, (i % columns * width, i // columns * height))
    return grid


Value = str | float | None
Row = Mapping[str, Value]
Rows = Sequence[Row]


def flat(values: object, path: str = "") -> dict[str, Value]:
    """Flatten nested values, named by their path: generator.width, domains.0.name."""
    if isinstance(values, list | tuple):
        values = {str(number): value for number, value in enumerate(values)}
    if not isinstance(values, Mapping):
        return {path: values if isinstance(values, str | float | int | None) else str(values)}
    leaves: dict[str, Value] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{path}.{name}" if path else name)
    return leaves


def markdown(rows: Rows) -> str:
    """Return rows as a Markdown table, with a column for every name."""
    names = _names(rows)

    def shown(value: Value) -> str:
        if isinstance(value, float):
            return f"{value:.5g}"
        return "" if value is None else str(value).replace("|", "\\|")

    lines = [names, ["---"] * len(names), *([shown(row.get(name)) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Sequence[float], form: str = ".2%") -> str:
    """Return the mean of values and, if there are several, their standard deviation, as text."""
    return f"{mean(values):{form}}" + (f" +- {stdev(values):{form}}" if values[1:] else "")


def save_report(rows: Rows, folder: Path) -> None:
    """Write report.csv, with every digit, and report.md into the folder, each as a whole file."""
    table = io.StringIO()
    writer = csv.DictWriter(table, _names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "report.csv", lambda aside: aside.write_text(table.getvalue(), newline=""))
    write_whole(folder / "report.md", lambda aside: aside.write_text(markdown(rows)))


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
