"""What a run took."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from training import train
from training.config.experiment import Experiment
from training.engine.machine import describe_machine
from training.runs.folder import RunFolder, machines, note_machine, seconds

MakeExperiment = Callable[..., Experiment]


def test_each_machine_is_noted_once(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A run that went on where it was begun names one machine, and one that moved names two, in order."""
    run = RunFolder.create(tmp_path, make_experiment())
    assert machines(run) == []
    for threads in (1, 1, 2, 1):
        note_machine(run, {"device": "abacus", "threads": threads})
    assert machines(run) == [{"device": "abacus", "threads": 1}, {"device": "abacus", "threads": 2}]


def test_the_time_between_two_trainings_does_not_count(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run took as long as its trainings together, each from its begin to its last line."""
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    run = RunFolder.create(tmp_path, make_experiment())
    assert seconds(run) == 0
    for began in (0, 10):
        now += 3600
        with closing(run.open_log(began)) as log:
            for step in (5, 10):
                now += 60
                log.write(began + step, {"loss": 1.0})
    assert seconds(run) == 4 * 60


def test_a_run_notes_where_it_is_trained(run_verb: Callable[..., None], write_experiment: Path, tmp_path: Path) -> None:
    """The verb writes the device, its threads and the processes, and how long it took follows."""
    run_verb(train, write_experiment, "--runs", tmp_path, "--machine.accelerator", "cpu")
    run = RunFolder.open(tmp_path / "00000_tiny")
    (machine,) = machines(run)
    assert machine == describe_machine(torch.device("cpu"), processes=1, precision="32-true")
    assert (machine["threads"], machine["of_threads"]) == (torch.get_num_threads(), os.cpu_count())
    assert machine["device"]
    assert 0 < seconds(run) < 60
