"""Train, measure and draw an experiment with every combination of the values of some of its fields.

    python -m training.sweep training/experiments/digit_negative.toml --over generator.shared_layers=0,1,2,3,4

With another `--over` for discriminator.shared_layers this is figure 4 of Liu & Tuzel 2016. A point is a run
among the others, known by its experiment: what was trained or measured is not done again, and a sweep that
was stopped goes on. Writes report.md, report.csv and quality.png, anew after every point.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import UseAppendAction, arg

from training.command_line import parse, verb
from training.compute.machine import Machine
from training.config.experiment import Experiment, load_experiment
from training.config.grid import move, read_points
from training.errors import DivergedError, RunError
from training.evaluate import MeasureOptions, evaluate
from training.measures.quality import load_judges, load_real
from training.runs.checkpoint import last_step
from training.runs.figures import Curve, save_curves
from training.runs.folder import RunFolder, find_run
from training.runs.reports import Rows, Value, flat, save_report
from training.train import complete


@dataclass(frozen=True)
class SweepOptions:
    """What is swept over, how it is measured, and where everything goes."""

    experiment: Annotated[Experiment, arg(name="")]
    over: UseAppendAction[tuple[str, ...]] = ()
    """A field and its values, as in generator.shared_layers=0,1,2; several times for all combinations."""
    runs: Path = Path("runs")
    """Folder of the run folders."""
    to: Path = Path("sweep")
    """Folder that the report and the curves are written into."""
    dry_run: bool = False
    """Check every point, say how far each is, and stop."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Sweep over an experiment file."""
    options = parse(SweepOptions(load_experiment(target)), arguments)
    device = options.machine.device("a sweep")
    points = read_points(options.over)
    experiments = [move(options.experiment, point) for point in points]
    accuracies = {
        images: judged(one, options.measure.classifiers)
        for images, one in {(one.domains, one.size): one for one in experiments}.items()
    }
    rows: list[dict[str, Value]] = []
    for point, experiment in zip(points, experiments, strict=True):
        print(", ".join(f"{name} = {value}" for name, value in point.items()))
        run = find_run(options.runs, experiment)
        if options.dry_run:
            print(f"  {last_step(run.checkpoints) if run else 0} of {experiment.steps} steps are done")
            continue
        cells = {name: _cell(value) for name, value in point.items()}
        judges = accuracies[experiment.domains, experiment.size]
        rows.append({**cells, **reach(run, experiment, judges, options, device)})
        write(rows, list(point), options.to)


def judged(experiment: Experiment, classifiers: Path) -> dict[str, object]:
    """Return how good the classifiers are that judge an experiment. Raises RunError without them."""
    judges = load_judges(experiment, load_real(experiment), classifiers)
    return {name: judge.named_accuracy() for name, judge in judges.items()}


def reach(
    run: RunFolder | None,
    experiment: Experiment,
    judges: dict[str, object],
    options: SweepOptions,
    device: torch.device,
) -> dict[str, Value]:
    """Do what is left of a point; return its run, and the numbers of its quality, if it has not diverged.

    A quality that as many pairs and as good judges have given is not measured again.
    """
    try:
        run = complete(run, experiment, options.runs, options.machine)
    except DivergedError as error:
        print(error)
        run = find_run(options.runs, experiment)
        return {"run": run.path.name if run else ""}
    known: dict[str, object] = {}
    with suppress(RunError):
        known = run.quality(experiment.steps)
    if (known.get("pairs"), known.get("classifier_accuracy", {})) != (options.measure.pairs, judges):
        known = evaluate(run, options.measure, device)
    numbers = {name: value for name, value in flat(known).items() if isinstance(value, float | int)}
    return {"run": run.path.name, **numbers}


def _cell(value: object) -> Value:
    return value if isinstance(value, str | float | int | None) else json.dumps(value)


def write(rows: Rows, fields: list[str], folder: Path) -> None:
    """Write the report on the points that have been reached, and the curves of what differs between them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_report(rows, folder)
    if panels := by_measure(rows, fields):
        save_curves(panels, fields[0], folder / "quality.png")


def by_measure(rows: Rows, fields: Sequence[str]) -> dict[str, dict[str, Curve]]:
    """Return a panel for each number that differs between rows, over the values of the first field.

    The values of the other fields make the curves. Values that are not all numbers are words.
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


if __name__ == "__main__":
    main()
