"""Compare runs: how their experiments differ, their last metrics and their quality, as a report and curves.

    python -m training.compare runs/00003_digit_edge runs/00004_digit_edge

Writes report.md, report.csv and metrics.png, a panel for each metric and a curve for each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from training.command_line import parse, verb
from training.config.experiment import EXPERIMENT
from training.errors import ConfigError, RunError
from training.files import read_json
from training.runs.figures import by_metric, save_curves
from training.runs.folder import RunFolder
from training.runs.reports import Rows, Value, flat, markdown, save_report


@dataclass(frozen=True)
class CompareOptions:
    """What is compared with the target, and where the result goes."""

    others: Positional[tuple[Path, ...]] = ()
    """The other runs' folders."""
    to: Path = Path("comparison")
    """Folder that the report and the curves are written into."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Compare a run folder with others."""
    options = parse(CompareOptions(), arguments)
    runs = [RunFolder.open(path) for path in (target, *options.others)]
    rows, curves = compare(runs), {str(run.path): run.curves() for run in runs}
    if not any(curves.values()):
        raise RunError(f"{', '.join(curves)}: no metrics yet; they come every experiment.log_every steps")
    options.to.mkdir(parents=True, exist_ok=True)
    save_report(rows, options.to)
    save_curves(by_metric(curves), "step", options.to / "metrics.png")
    print(markdown(rows) + f"\n{options.to}")


def compare(runs: Sequence[RunFolder]) -> Rows:
    """Return a row for each value, and in it a column for each run.

    First the fields in which their experiments differ, then the last of each metric, then the quality.
    """
    fields = {str(run.path): flat(_fields(run)) for run in runs}
    lasts = {str(run.path): {name: kept[-1] for name, (_, kept) in run.curves().items()} for run in runs}
    qualities = {str(run.path): flat(_quality(run), "quality") for run in runs}
    return [*_differing(_turned(fields)), *_turned(lasts), *_turned(qualities)]


def _turned(columns: Mapping[str, Mapping[str, Value]]) -> Rows:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [{"name": name} | {run: column.get(name) for run, column in columns.items()} for name in names]


def _differing(rows: Rows) -> Rows:
    return [row for row in rows if len({value for name, value in row.items() if name != "name"}) > 1]


def _fields(run: RunFolder) -> object:
    """Return every field of an experiment, also those that there were not yet when it was begun."""
    try:
        return EXPERIMENT.dump_python(run.experiment(), mode="json")
    except ConfigError:  # it has some that there are no longer
        return run.description()["experiment"]


def _quality(run: RunFolder) -> object:
    return read_json(run.quality_file) if run.quality_file.is_file() else {}


if __name__ == "__main__":
    main()
