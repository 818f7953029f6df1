"""Device, threads and precision: what belongs to the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import train
from training.config.experiment import Experiment, load_experiment
from training.engine import machine
from training.engine.machine import Machine, has_bfloat16
from training.errors import ConfigError
from training.files import write_json
from training.runs.folder import RunFolder

RunVerb = Callable[..., None]


def test_the_environment_sets_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine keeps its choices in COGAN_ACCELERATOR, COGAN_THREADS and COGAN_PRECISION."""
    for name, value in (("ACCELERATOR", "cpu"), ("THREADS", "3"), ("PRECISION", "bf16-mixed")):
        monkeypatch.setenv(f"COGAN_{name}", value)
    assert Machine.from_environment() == Machine("cpu", 3, "bf16-mixed")
    monkeypatch.setenv("COGAN_THREADS", "many")
    with pytest.raises(ConfigError, match="COGAN_threads = 'many'"):
        Machine.from_environment()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("asimd bf16", True), ("fpu avx512f", False), ("", False)],
)
def test_bfloat16_is_chosen_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    """Emulated it would be slower than floats of 32 bits."""
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"model name : abacus\nflags : {flags}\n")
    assert has_bfloat16(torch.device("cpu")) == expected
    fabric = Machine(accelerator="cpu", threads=1).fabric()
    assert fabric._precision.precision == ("bf16-mixed" if expected else "32-true")


def test_a_run_keeps_what_was_chosen(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """What the machine chose is resolved once, into the run, and taken up when it is resumed."""
    run_verb(train, write_experiment, "--runs", tmp_path, "--machine.precision", "bf16-mixed")
    (kept,) = json.loads((tmp_path / "00000_tiny/machines.json").read_text())
    assert (kept["accelerator"], kept["precision"]) == ("cpu", "bf16-mixed")
    assert Machine().resume(kept) == Machine("cpu", kept["threads"], "bf16-mixed")
    assert Machine(precision="32-true", threads=1).resume(kept) == Machine("cpu", 1, "32-true")
    assert Machine().resume({"device": "of an earlier version"}) == Machine()
    if not torch.cuda.is_available():
        assert Machine().resume({"accelerator": "cuda"}).accelerator == "auto"


def test_a_recipe_has_no_precision(
    write_experiment: Path, make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """The error names where precision belongs now, and runs that kept it in their experiment are still read."""
    write_experiment.write_text('precision = "bf16-mixed"\n' + write_experiment.read_text())
    with pytest.raises(ConfigError, match=r"precision belongs to the machine: --machine\.precision bf16"):
        load_experiment(write_experiment)
    run = RunFolder.create(tmp_path, make_experiment())
    description = run.description()
    description["experiment"]["precision"] = "bf16-mixed"
    write_json(run.path / "experiment.json", description)
    assert run.experiment() == make_experiment()
