"""Runs beside one another."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from training import compare
from training.config.experiment import Experiment
from training.files import write_json
from training.runs.folder import RunFolder

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def runs(make_experiment: MakeExperiment, tmp_path: Path) -> list[RunFolder]:
    """Return two runs that differ in the discriminator's penalty, the second of them measured."""
    folders = []
    for penalty in ("none", "r1"):
        experiment = make_experiment(discriminator={"penalty": penalty})
        folders.append(RunFolder.create(tmp_path / "runs", experiment))
        with closing(folders[-1].open_log(0)) as log:
            log.write(10, {"loss": 0.75} | ({"r1": 4.0} if penalty == "r1" else {}))
            log.write(20, {"loss": 0.5})
    write_json(folders[1].quality_file, {"steps": 20, "pixel_agreement": {"edge": {"of": "digit"}}})
    return folders


def test_the_report_has_what_differs_and_what_came_of_it(runs: list[RunFolder]) -> None:
    """Fields alike in all runs are left out; the last of each metric and all of the quality are there."""
    one, other = (str(run.path) for run in runs)
    assert compare.compare(runs) == [
        {"name": "discriminator.penalty", one: "none", other: "r1"},
        {"name": "loss", one: 0.5, other: 0.5},
        {"name": "r1", one: None, other: 4.0},
        {"name": "quality.steps", one: None, other: 20},
        {"name": "quality.pixel_agreement.edge.of", one: None, other: "digit"},
    ]


def test_a_field_that_is_new_is_no_difference(runs: list[RunFolder]) -> None:
    """A run begun before there was the field has what it is by default."""
    file = runs[0].path / "experiment.json"
    old = json.loads(file.read_text())
    del old["experiment"]["domains"][0]["balanced"]
    write_json(file, old)
    assert [row["name"] for row in compare.compare(runs)][0:2] == ["discriminator.penalty", "loss"]


def test_the_verb_writes_report_and_curves(
    run_verb: RunVerb, runs: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is printed too; the folder is made where there is none."""
    run_verb(compare, *(run.path for run in runs), "--to", tmp_path / "deep" / "out")
    assert "| discriminator.penalty | none | r1 |" in capsys.readouterr().out
    written = sorted(file.name for file in (tmp_path / "deep" / "out").iterdir())
    assert written == ["metrics.png", "report.csv", "report.md"]


def test_a_run_without_metrics_is_told_so(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to draw yet, and nothing is written."""
    run = RunFolder.create(tmp_path / "runs", make_experiment())
    with pytest.raises(SystemExit, match="2"):
        run_verb(compare, run.path, "--to", tmp_path / "out")
    assert "00000_tiny: no metrics yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
