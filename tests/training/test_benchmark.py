"""The benchmark of training compares steps that do the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from tests.benchmarks.training.__main__ import arms, measure, rows, without_penalty
from tests.benchmarks.training.loops import LOOPS, Loop
from training.config.experiment import Experiment

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_trains_both_networks(make_experiment: MakeExperiment, loop: str) -> None:
    """A step moves every weight of all domains."""
    experiment = make_experiment(("digit", "edge", "negative"))
    images = {d.name: torch.randint(256, (9, 1, 28, 28), dtype=torch.uint8) for d in experiment.domains}
    trained = Loop(experiment, images)
    weights = [*trained.generator.parameters(), *trained.discriminator.parameters()]
    before = copy.deepcopy(weights)
    LOOPS[loop](trained)
    assert not any(torch.equal(*pair) for pair in zip(weights, before, strict=True))


def test_every_arm_is_measured_beside_the_others(make_experiment: MakeExperiment) -> None:
    """Each loop and each of our precisions has a row, with its ratio to every loop."""
    experiment = without_penalty(make_experiment(discriminator={"penalty": "r1"}, encoder={"width": 1 / 32}))
    seconds = measure(arms(experiment), repeats=2, count=1)
    assert [len(values) for values in seconds.values()] == [2] * len(seconds)
    table = rows(seconds, images=8)
    assert [row["step"] for row in table] == [*LOOPS, "ours, 32-true", "ours, bf16-mixed"]
    assert [table[number][f"x {loop}"] for number, loop in enumerate(LOOPS)] == ["1.00"] * len(LOOPS)
    assert all(float(str(row["images/s"])) > 0 for row in table)
