"""Train and measure a recipe with every combination of the values of some of its fields.

    python -m training.sweep training/recipes/digit_negative.toml --over generator.shared_layers=0,1,2,3,4

With another `--over` for discriminator.shared_layers this is figure 4 of Liu & Tuzel 2016. A point is a run
among the others, known by its experiment: what was trained or measured is not done again, and a sweep that
was stopped goes on. Writes report.md, report.csv and quality.png, anew after every point.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from tyro.conf import UseAppendAction, arg

from training.cli import parse, size_asked_for, verb
from training.config.experiment import EXPERIMENT, Experiment, load_experiment, parse_experiment
from training.data.choices import Choices
from training.engine.machine import Machine
from training.errors import ConfigError, DivergedError, RunError
from training.evaluate import MeasureOptions, evaluate
from training.files import make_folder
from training.metrics.quality import load_evaluation_classifiers, load_real
from training.runs.figures import Curve, Rows, Value, flat, save_curves, save_report
from training.runs.folder import RunFolder, find_run, last_step, snapshot_step
from training.runs.images import check_held_out
from training.train import complete

Point = Mapping[str, Any]  # a value for each field that is swept over
PIXELS = "pixels"  # the field that a recipe without architectures is completed by


@dataclass(frozen=True)
class SweepOptions:
    """Fields to sweep over, measuring, and output folders."""

    experiment: Annotated[Experiment, arg(name="")]
    over: UseAppendAction[tuple[str, ...]] = ()
    """A field and its values, as in generator.shared_layers=0,1,2; several times for all combinations."""
    runs: Path = Path("runs")
    """Folder of the run folders."""
    to: Path = Path("sweep")
    """Folder that the report and the curves are written into."""
    dry_run: bool = False
    """Check every point, print its progress, and stop."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Sweep over the fields of a recipe."""
    has_gpu = Machine.from_environment().has_gpu()

    def read(pixels: int | None) -> SweepOptions:
        return parse(SweepOptions(load_experiment(target, Choices(has_gpu, pixels))), arguments)

    options = read(size_asked_for(arguments))
    device = options.machine.device("a sweep")
    points = read_points(options.over)
    bases = [read(point[PIXELS]) if PIXELS in point else options for point in points]
    experiments = [move(base.experiment, point) for base, point in zip(bases, points, strict=True)]
    accuracies_by_images = {
        images: _accuracies(one, options.measure.classifiers)
        for images, one in {(one.domains, one.size): one for one in experiments}.items()
    }
    if not options.dry_run:
        make_folder(options.to)
    rows: list[dict[str, Value]] = []
    for point, experiment in zip(points, experiments, strict=True):
        print(", ".join(f"{name} = {value}" for name, value in point.items()))
        run = find_run(options.runs, experiment)
        if options.dry_run:
            print(f"  {last_step(run.checkpoints) if run else 0} of {experiment.steps} steps are done")
            continue
        cells = {name: v if isinstance(v, str | float | int | None) else json.dumps(v) for name, v in point.items()}
        accuracies = accuracies_by_images[experiment.domains, experiment.size]
        rows.append({**cells, **reach(run, experiment, accuracies, options, device)})
        write(rows, list(point), options.to)


def _accuracies(experiment: Experiment, classifiers: Path) -> dict[str, object]:
    found = load_evaluation_classifiers(experiment, load_real(experiment), classifiers)
    return {name: classifier.named_accuracy() for name, classifier in found.items()}


def reach(
    run: RunFolder | None,
    experiment: Experiment,
    accuracies: dict[str, object],
    options: SweepOptions,
    device: torch.device,
) -> dict[str, Value]:
    """Complete a point; return its run, and the numbers of its quality, if it has not diverged.

    A quality measured with as many pairs and classifiers of the same accuracies is not measured again.
    """
    try:
        run = complete(run, experiment, options.runs, options.machine, options.measure.classifiers)
    except DivergedError as error:
        print(error)
        run = find_run(options.runs, experiment)
        return {"run": run.path.name if run else ""}
    known: dict[str, object] = {}
    with suppress(RunError):
        known = run.quality(snapshot_step(run, options.measure.snapshot))
    if (known.get("pairs"), known.get("classifier_accuracy", {})) != (options.measure.pairs, accuracies):
        known = evaluate(run, options.measure, device)
    else:
        check_held_out(run, "be measured")
    numbers = {name: value for name, value in flat(known).items() if isinstance(value, float | int)}
    return {"run": run.path.name, **numbers}


def write(rows: Rows, fields: list[str], folder: Path) -> None:
    """Write the report on the completed points, and the curves of numbers that differ between them."""
    save_report(rows, folder)
    if panels := by_measure(rows, fields):
        save_curves(panels, fields[0], folder / "quality.png")


def by_measure(rows: Rows, fields: Sequence[str]) -> dict[str, dict[str, Curve]]:
    """Return a panel for each number that differs between rows, over the values of the first field.

    The values of the other fields label the curves. Unless all values are numbers they are text.
    """
    across, *others = fields
    numbers = all(isinstance(row[across], float | int) for row in rows)
    names = dict.fromkeys(name for row in rows for name in row if name not in fields)
    panels: dict[str, dict[str, Curve]] = {}
    for name in names:
        known = [(row, value) for row in rows if isinstance(value := row.get(name), float | int)]
        if len({value for _, value in known}) > 1:
            curves = panels.setdefault(name, {})
            for row, value in known:
                label = ", ".join(f"{other} = {row[other]}" for other in others)
                places, values = curves.setdefault(label, ([], []))
                places.append(row[across] if numbers else str(row[across]))
                values.append(value)
    return panels


def read_points(over: Sequence[str]) -> list[Point]:
    """Return every combination of the values of fields, each given as generator.shared_layers=0,1,2.

    Values are JSON; anything else is text. Raises ConfigError, naming what is wrong.
    """
    axes = [_read_axis(text) for text in over]
    fields = [field for field, _ in axes]
    if not fields or len(set(fields)) < len(fields):
        raise ConfigError(f"over = {fields}: name one field or more, each once")
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(v for _, v in axes))]


def move(experiment: Experiment, point: Point) -> Experiment:
    """Return the experiment with the values of the point in its fields. Raises ConfigError."""
    values = EXPERIMENT.dump_python(experiment, mode="json")
    for name, value in point.items():
        *way, last = [int(part) if part.isdecimal() else part for part in name.split(".")]
        holder = values
        try:
            for part in way:
                holder = holder[part]
            holder[last] = value
        except (LookupError, TypeError) as error:
            raise ConfigError(f"over = {name!r}: an experiment has no such field") from error
    return parse_experiment(values)


def _read_axis(text: str) -> tuple[str, list[Any]]:
    field, _, values = text.partition("=")
    if not (field and values):
        raise ConfigError(f"over = {text!r}: must be FIELD=VALUE,VALUE, as in generator.shared_layers=0,1,2")
    try:
        return field, json.loads(f"[{values}]")
    except json.JSONDecodeError:
        parts: list[Any] = values.split(",")
    for i, part in enumerate(parts):
        with suppress(json.JSONDecodeError):
            parts[i] = json.loads(part)
    return field, parts


if __name__ == "__main__":
    main()
