"""What a run writes into its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.summary.writer import event_file_writer

from training.config.experiment import Experiment
from training.errors import ConfigError, RunError
from training.files import write_json
from training.runs.folder import RunFolder

MakeExperiment = Callable[..., Experiment]


def steps_of(run: RunFolder) -> list[int]:
    """Return the steps of the lines of metrics."""
    return [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_runs_are_numbered(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Each run takes the number after the highest, whatever else lies in the folder."""
    runs = tmp_path / "runs"
    first = RunFolder.create(runs, make_experiment())
    (runs / "notes").mkdir()
    (runs / "00041_other").mkdir()
    second = RunFolder.create(runs, make_experiment(name="fine"))
    assert [run.path.name for run in (first, second)] == ["00000_tiny", "00042_fine"]


def test_runs_begun_at_once_have_numbers_of_their_own(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Of runs that begin at one moment, whatever their names, each has a number that no other one has."""
    experiments = [make_experiment(name=name) for name in ("tiny", "fine") * 8]
    with ThreadPoolExecutor(len(experiments)) as pool:
        runs = list(pool.map(partial(RunFolder.create, tmp_path), experiments))
    assert sorted(run.path.name[:5] for run in runs) == [f"{number:05d}" for number in range(16)]


def test_a_run_describes_itself(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """The folder gives back the experiment, and says what commit and libraries made it."""
    experiment = make_experiment(("digit", "edge", "colour"), warmdown=0.25)
    run = RunFolder.open(RunFolder.create(tmp_path, experiment).path)
    assert run.experiment() == experiment
    assert set(run.description()["versions"]) >= {"python", "torch", "onnxruntime"}
    assert run.description()["commit"]


def test_metrics_are_lines_and_events(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """The same values stand in the JSON lines and in what TensorBoard reads."""
    run = RunFolder.create(tmp_path, make_experiment())
    with closing(run.open_log(0)) as log:
        log.write(10, {"loss": 0.5, "penalty": 2.0})
        log.write(20, {"loss": 0.25})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.5, "penalty": 2.0}, {"step": 20, "loss": 0.25}]
    events = event_accumulator.EventAccumulator(str(run.path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 0.5), (20, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("penalty")] == [(10, 2.0)]


def test_metrics_become_curves(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Each metric has its own steps, and a line that is being written does not count yet."""
    run = RunFolder.create(tmp_path, make_experiment())
    assert run.curves() == {}
    with closing(run.open_log(0)) as log:
        log.write(10, {"loss": 0.5, "penalty": 2.0})
        log.write(20, {"loss": 0.25})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    assert run.curves() == {"loss": ([10, 20], [0.5, 0.25]), "penalty": ([10], [2.0])}


@pytest.mark.parametrize("torn", ["", '{"step": 40, "lo', '{"step": 40, "loss": 1.0}'])
def test_lines_beyond_the_checkpoint_are_forgotten(
    make_experiment: MakeExperiment, tmp_path: Path, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumed at step 20 has one line a step, also where the kill cut the last line short."""
    # the names of files of one second end in a number, and TensorBoard takes 10 for less than 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    run = RunFolder.create(tmp_path, make_experiment())
    with closing(run.open_log(0)) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    with closing(run.open_log(20)) as log:
        log.write(30, {"loss": 2.0})
    assert steps_of(run) == [10, 20, 30]
    events = event_accumulator.EventAccumulator(str(run.path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 1), (20, 1), (30, 2)]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """Opening it says what is missing."""
    with pytest.raises(RunError, match=r"no run folder.*experiment\.json"):
        RunFolder.open(tmp_path)


def test_an_experiment_that_is_read_no_longer_is_told_by_its_run(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    """A field that went, or a name that is not there yet, comes with the folder that has it."""
    run = RunFolder.create(tmp_path, make_experiment())
    description = run.description()
    description["experiment"]["loss"] = "newest"
    write_json(run.path / "experiment.json", description)
    with pytest.raises(ConfigError, match=r"00000_tiny: loss = 'newest': must be one of"):
        run.experiment()


def test_quality_belongs_to_a_step(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """What was measured before the last checkpoint does not count, and the command to run is named."""
    run = RunFolder.create(tmp_path, make_experiment())
    with pytest.raises(RunError, match=r"python -m training\.evaluate .+00000_tiny"):
        run.quality(10)
    run.quality_file.write_text('{"steps": 10}')
    assert run.quality(10) == {"steps": 10}
    with pytest.raises(RunError, match="not measured after step 20"):
        run.quality(20)
