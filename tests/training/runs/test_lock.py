"""A run is trained once at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightning_fabric import Fabric

from training import train
from training.config.experiment import Experiment
from training.engine.distributed import Processes
from training.errors import RunError
from training.runs.folder import RunFolder, held

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
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
    for holding in (another(run), held(run, processes)):
        refused = pytest.raises(RunError, match="00000_tiny is being trained by another process")
        with holding, refused, held(run, processes):
            pass
    with held(run, processes):
        pass


def test_another_run_can_be_trained_beside_it(make_experiment: MakeExperiment, tmp_path: Path, fabric: Fabric) -> None:
    """What is held is a folder, not all of them."""
    first, second = (RunFolder.create(tmp_path, make_experiment()) for _ in range(2))
    with held(first, Processes(fabric)), held(second, Processes(fabric)):
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
