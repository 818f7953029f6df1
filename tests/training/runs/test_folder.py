"""What a run writes into its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.summary.writer import event_file_writer

from training import train
from training.config.experiment import Experiment
from training.engine.machine import Processes, describe_machine
from training.errors import ConfigError, RunError
from training.evaluate import MeasureOptions, evaluate
from training.files import write_json
from training.runs.folder import (
    MAX_CHECKPOINTS,
    MetricsLog,
    RunFolder,
    last_step,
    list_checkpoints,
    load_checkpoint,
    locked,
    machines,
    note_machine,
    save_checkpoint,
    seconds,
)

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
    with closing(MetricsLog(run.path, 0)) as log:
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
    with closing(MetricsLog(run.path, 0)) as log:
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
    with closing(MetricsLog(run.path, 0)) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    with closing(MetricsLog(run.path, 20)) as log:
        log.write(30, {"loss": 2.0})
    assert steps_of(run) == [10, 20, 30]
    events = event_accumulator.EventAccumulator(str(run.path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 1), (20, 1), (30, 2)]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """Opening it says what is missing."""
    with pytest.raises(RunError, match=r"no run folder.*experiment\.json"):
        RunFolder.open(tmp_path)


def test_an_unreadable_experiment_is_named_by_its_run(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A field that went, or a name that is not there yet, comes with the folder that has it."""
    run = RunFolder.create(tmp_path, make_experiment())
    description = run.description()
    description["experiment"]["loss"] = "newest"
    write_json(run.path / "experiment.json", description)
    with pytest.raises(ConfigError, match=r"00000_tiny: loss = 'newest': must be one of"):
        run.experiment()


@pytest.mark.parametrize("name", ["experiment", "commit", "versions"])
def test_a_description_that_lacks_something_is_named(
    make_experiment: MakeExperiment, tmp_path: Path, name: str
) -> None:
    """Before anything is loaded; so is one that is no object, and a measured quality that is none."""
    run = RunFolder.create(tmp_path, make_experiment())
    file = run.path / "experiment.json"
    write_json(file, {key: value for key, value in run.description().items() if key != name})
    with pytest.raises(RunError, match=rf"{file} does not describe a run: it has no {name}; restore the file"):
        run.experiment()
    for other in (file, run.quality_file):
        other.write_text("[1]")
    for read in (run.experiment, lambda: run.quality(1)):
        with pytest.raises(RunError, match=r"does not hold JSON: it is of type list, not dict"):
            read()


def test_a_run_that_cannot_be_written_is_not_measured(make_experiment: MakeExperiment, as_a_user: Path) -> None:
    """The error comes before the minutes that measuring takes."""
    run = RunFolder.create(as_a_user, make_experiment())
    run.path.chmod(0o500)
    with pytest.raises(RunError, match=f"cannot be written: Permission denied; allow it to write in {run.path}"):
        evaluate(run, MeasureOptions(), torch.device("cpu"))


def test_quality_belongs_to_a_step(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """What was measured before the last checkpoint does not count, and the command to run is named."""
    run = RunFolder.create(tmp_path, make_experiment())
    with pytest.raises(RunError, match=r"python -m training\.evaluate .+00000_tiny"):
        run.quality(10)
    run.quality_file.write_text('{"steps": 10}')
    assert run.quality(10) == {"steps": 10}
    with pytest.raises(RunError, match="not measured after step 20"):
        run.quality(20)


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    """Older ones are removed, and the last one is loaded."""
    for step in (5, 100, 20_000):
        save_checkpoint(tmp_path, step, {"steps_done": step, "weights": torch.full((2,), float(step))})
    assert [file.name for file in list_checkpoints(tmp_path)] == ["step_00000100.pt", "step_00020000.pt"]
    assert len(list_checkpoints(tmp_path)) == MAX_CHECKPOINTS
    state = load_checkpoint(tmp_path)
    assert state["steps_done"] == 20_000
    assert state["weights"].tolist() == [20_000.0, 20_000.0]


def test_a_file_that_a_kill_left_is_no_checkpoint(tmp_path: Path) -> None:
    """Half a checkpoint has another name, and a folder without whole ones says so."""
    (tmp_path / ".step_00000100.pt.part").write_bytes(b"half")
    with pytest.raises(RunError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_named_with_the_one_before(tmp_path: Path) -> None:
    """Nothing older is taken unasked; without the damaged file it is what a run goes on from."""
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"steps_done": step})
    older, last = list_checkpoints(tmp_path)
    for file, message in ((last, f"without it, {older.name} is the last"), (older, "there is no older one")):
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(RunError, match=rf"{file.name} does not hold a checkpoint: .+; {message}"):
            load_checkpoint(tmp_path)
        file.unlink()


def test_a_copy_of_a_checkpoint_is_a_persons(tmp_path: Path) -> None:
    """It is neither taken for the last one nor removed with the oldest."""
    copies = [tmp_path / "step_final.pt", tmp_path / "step_00000001_copy.pt"]
    for copy in copies:
        copy.write_bytes(b"mine")
    for step in (5, 10, 20):
        save_checkpoint(tmp_path, step, {"steps_done": step})
    assert last_step(tmp_path) == load_checkpoint(tmp_path)["steps_done"] == 20
    assert all(copy.exists() for copy in copies)


RunVerb = Callable[..., None]
HOLD = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"


@contextmanager
def another(run: RunFolder) -> Iterator[None]:
    """Have another process hold a run, and kill it at the end."""
    command = [sys.executable, "-c", HOLD, str(run.lock_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        try:
            yield
        finally:
            process.kill()


def test_a_run_is_held_by_one(make_experiment: MakeExperiment, tmp_path: Path, fabric: Fabric) -> None:
    """Others are refused while it is held, and not once it is let go or its holder is killed."""
    run, processes = RunFolder.create(tmp_path, make_experiment()), Processes(fabric)
    for holding in (another(run), locked(run, processes)):
        refused = pytest.raises(RunError, match="00000_tiny is being trained by another process")
        with holding, refused, locked(run, processes):
            pass
    with locked(run, processes):
        pass


def test_another_run_can_be_trained_beside_it(make_experiment: MakeExperiment, tmp_path: Path, fabric: Fabric) -> None:
    """What is held is a folder, not all of them."""
    first, second = (RunFolder.create(tmp_path, make_experiment()) for _ in range(2))
    with locked(first, Processes(fabric)), locked(second, Processes(fabric)):
        assert first.path != second.path


def test_a_run_that_is_being_trained_is_left_as_it_is(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To resume it ends in one line that names the folder, and changes none of its files."""
    run_verb(train, write_experiment, "--runs", tmp_path)
    run = RunFolder.open(tmp_path / "00000_tiny")
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    with another(run), pytest.raises(SystemExit) as ended:
        run_verb(train, run.path)
    assert ended.value.code == 2
    assert f"error: {run.path} is being trained by another process" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


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
        with closing(MetricsLog(run.path, began)) as log:
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
