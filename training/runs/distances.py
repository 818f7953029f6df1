"""Distance of a run's snapshots to real images, over its steps."""

from __future__ import annotations

from pathlib import Path

from training.metrics.label_free import SNAPSHOT_MEASURES
from training.runs.figures import Curve, save_curves
from training.runs.folder import RunFolder
from training.runs.tables import Row


def distance_curves(run: RunFolder) -> dict[str, Curve]:
    """Return the curves of the distance of a run's snapshots: its mean over domains, and each domain's.

    Empty if none was measured.
    """
    curves = run.curves()
    name = next((name for name in SNAPSHOT_MEASURES if name in curves), "")
    return {one: curve for one, curve in curves.items() if name and one.partition("/")[0] == name}


def save_distance(run: RunFolder, file: Path) -> None:
    """Draw the distance of a run's snapshots over its steps, if they were measured."""
    if curves := distance_curves(run):
        mean = next(iter(curves))
        labelled = {one.partition("/")[2] or "mean": curve for one, curve in curves.items()}
        save_curves({mean: labelled}, "step", file)


def distance_row(run: RunFolder, picture: Path) -> Row:
    """Return how the distance of a run's snapshots fell, and whether it was still falling at the end."""
    experiment, (measure, (steps, values)) = run.experiment(), next(iter(distance_curves(run).items()))
    best = min(values)
    step = steps[values.index(best)]
    return {
        "experiment": experiment.name,
        "over the steps": f"![]({picture})",
        "measure": measure,
        "best": f"{best:.2f}",
        "after step": f"{int(step):,}",
        "last": f"{values[-1]:.2f}",
        "best in the last fifth": "yes" if step > 0.8 * experiment.steps else "no",
    }
