"""The numbered folder of a run: everything needed to understand, repeat, resume or export it.

runs/00003_digit_edge/
    experiment.json     the whole experiment, versions, commit
    metrics.jsonl       a line of mean losses every `log_every` steps
    events/             the same for TensorBoard
    machines.json       where it was trained
    images.json         which images each domain learns from
    samples/            sheets: rows are latents, columns are domains
    checkpoints/        resumable states
    losses.png          the metrics over the steps, once the run has ended
    training.gif        the sheets, one after the other, once the run has ended
    quality.json        what `evaluate` measured
    accuracy.json       what `adapt` measured
    .lock               held by whoever trains it
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from training.config.experiment import EXPERIMENT, Experiment, parse_kept
from training.errors import ConfigError, RunError
from training.files import read_json, write_json, write_lines
from training.runs.checkpoint import last_step
from training.runs.metrics_log import MetricsLog
from training.runs.origin import origin


class RunFolder:
    """Reads and writes one run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.losses_file = path / "losses.png"
        self.film_file = path / "training.gif"
        self.quality_file = path / "quality.json"
        self.accuracy_file = path / "accuracy.json"
        self.lock_file = path / ".lock"
        self.machines_file = path / "machines.json"
        self.images_file = path / "images.json"
        self.events = path / "events"
        self._experiment_file = path / "experiment.json"
        self._metrics_file = path / "metrics.jsonl"

    @classmethod
    def create(cls, runs: Path, experiment: Experiment) -> RunFolder:
        """Make the next numbered folder below `runs` and describe the experiment in it."""
        runs.mkdir(parents=True, exist_ok=True)
        with FileLock(runs / ".lock"):  # no two runs begun at once get one number
            run = cls(runs / f"{_next_number(runs):05d}_{experiment.name}")
            run.path.mkdir()
        for folder in (run.checkpoints, run.samples):
            folder.mkdir()
        write_json(run._experiment_file, {"experiment": EXPERIMENT.dump_python(experiment, mode="json"), **origin()})
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run. Raises RunError where there is none."""
        run = cls(path)
        if not run._experiment_file.is_file():
            raise RunError(f"{path} is no run folder: it has no {run._experiment_file.name}")
        return run

    def description(self) -> dict[str, Any]:
        """Return the experiment as plain values, the commit and the library versions."""
        description: dict[str, Any] = read_json(self._experiment_file)
        return description

    def experiment(self) -> Experiment:
        """Return the experiment of the run. Raises ConfigError where it is read no longer."""
        try:
            return parse_kept(self.description()["experiment"])
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error

    def metrics(self) -> list[dict[str, float]]:
        """Return the lines of metrics, but for one that a kill cut short."""
        if not self._metrics_file.exists():
            return []
        lines = []
        for line in self._metrics_file.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Return the steps and the values of every metric, by its name."""
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for line in self.metrics():
            for name in [name for name in line if name != "step"]:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(line[name])
        return curves

    def quality(self, steps: int) -> dict[str, Any]:
        """Return what `evaluate` measured after so many steps. Raises RunError where it has not."""
        return self._measured(self.quality_file, steps, "evaluate")

    def accuracy(self, steps: int) -> dict[str, Any]:
        """Return what `adapt` measured after so many steps. Raises RunError where it has not."""
        return self._measured(self.accuracy_file, steps, "adapt")

    def _measured(self, file: Path, steps: int, verb: str) -> dict[str, Any]:
        measured: dict[str, Any] = read_json(file) if file.is_file() else {}
        if measured.get("steps") != steps:
            raise RunError(f"{self.path} is not measured after step {steps}: python -m training.{verb} {self.path}")
        return measured

    def open_log(self, step: int) -> MetricsLog:
        """Open the metrics for writing after `step`, forgetting lines that a killed run wrote beyond it."""
        kept = [json.dumps(line) for line in self.metrics() if line["step"] <= step]
        write_lines(self._metrics_file, kept)
        return MetricsLog(self._metrics_file, self.events, step)


def find_run(runs: Path, experiment: Experiment) -> RunFolder | None:
    """Return the run of this experiment that came farthest, and of equals the last, if there is one."""
    found = []
    for path in sorted(runs.glob("*_*")):
        with suppress(RunError, ConfigError):  # others may be of an experiment that is read no longer
            run = RunFolder.open(path)
            found += [run] if run.experiment() == experiment else []
    return max(reversed(found), key=lambda run: last_step(run.checkpoints), default=None)


def _next_number(runs: Path) -> int:
    numbers = (re.match(r"(\d{5})_", entry.name) for entry in runs.iterdir())
    return max((int(match[1]) for match in numbers if match), default=-1) + 1
