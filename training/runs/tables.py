"""Tables of named values: CSV for programs, Markdown for people."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from training.files import write_whole

Value = str | float | None
Row = Mapping[str, Value]
Rows = Sequence[Row]


def flat(values: object, path: str = "") -> dict[str, Value]:
    """Flatten nested values, named by their path: generator.width, domains.0.name."""
    if isinstance(values, Mapping):
        parts = values.items()
    elif isinstance(values, list | tuple):
        parts = {str(number): value for number, value in enumerate(values)}.items()
    else:
        return {path: values if isinstance(values, str | float | int | None) else str(values)}
    leaves: dict[str, Value] = {}
    for name, value in parts:
        leaves |= flat(value, f"{path}.{name}" if path else name)
    return leaves


def markdown(rows: Rows) -> str:
    """Return rows as a Markdown table, with a column for every name."""
    names = _names(rows)
    lines = [names, ["---"] * len(names), *([_shown(row.get(name)) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Sequence[float], form: str = ".2%") -> str:
    """Return the mean of values and, if there are several, their standard deviation, as text."""
    return f"{mean(values):{form}}" + (f" +- {stdev(values):{form}}" if values[1:] else "")


def save_report(rows: Rows, folder: Path) -> None:
    """Write report.csv, with every digit, and report.md into the folder, each as a whole file."""
    write_whole(folder / "report.csv", lambda aside: _write_csv(rows, aside))
    write_whole(folder / "report.md", lambda aside: aside.write_text(markdown(rows)))


def _write_csv(rows: Rows, file: Path) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, _names(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _shown(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value).replace("|", "\\|")
