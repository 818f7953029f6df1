"""The benchmark of training compares steps that do the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.benchmarks.training.__main__ import arms, main, measure, rows, without_penalty
from tests.benchmarks.training.loops import LOOPS, Loop
from training.config.experiment import Experiment
from training.engine.machine import describe_machine
from training.errors import ConfigError

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_trains_both_networks(make_experiment: MakeExperiment, loop: str) -> None:
    """A step moves every weight of all domains."""
    experiment = make_experiment(("digit", "edge", "negative"))
    images = {d.name: torch.randint(256, (9, 1, 28, 28), dtype=torch.uint8) for d in experiment.domains}
    trained = Loop(experiment, images, CPU)
    weights = [*trained.generator.parameters(), *trained.discriminator.parameters()]
    before = copy.deepcopy(weights)
    LOOPS[loop](trained)
    assert not any(torch.equal(*pair) for pair in zip(weights, before, strict=True))


def test_every_arm_is_measured_beside_the_others(make_experiment: MakeExperiment) -> None:
    """Each loop and each of our precisions has a row, with its ratio to every loop."""
    experiment = without_penalty(make_experiment(discriminator={"penalty": "r1"}, encoder={"width": 1 / 32}))
    waits: list[int] = []
    seconds = measure(arms(experiment, CPU), repeats=2, count=1, wait=lambda: waits.append(1))
    assert len(waits) == 3 * len(seconds)  # the turn that warms up included
    assert [len(values) for values in seconds.values()] == [2] * len(seconds)
    table = rows(seconds, images=8)
    assert [row["step"] for row in table] == [*LOOPS, "ours, 32-true", "ours, bf16-mixed"]
    assert [table[number][f"x {loop}"] for number, loop in enumerate(LOOPS)] == ["1.00"] * len(LOOPS)
    assert all(float(str(row["images/s"])) > 0 for row in table)


def test_the_benchmark_runs_on_the_device_that_is_named(
    write_experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which, and one that is not there is an error that names it."""
    command = ["benchmark", str(write_experiment), "--repeats", "1", "--steps", "1", "--accelerator"]
    monkeypatch.setattr("sys.argv", [*command, "cpu"])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"tiny on {describe_machine(CPU, 1, '')['device']}, 1 threads")
    assert "| ours, bf16-mixed |" in printed
    missing = next(kind for kind in ("mps", "cuda") if not getattr(torch, kind).is_available())
    monkeypatch.setattr("sys.argv", [*command, missing])
    with pytest.raises(ConfigError, match=rf"machine\.accelerator = '{missing}'"):
        main()
