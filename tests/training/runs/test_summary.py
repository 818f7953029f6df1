"""The summary before a training: layers, and the time that a run takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.test_train import assert_same
from training import train
from training.config.experiment import Experiment
from training.engine.trainer import Trainer
from training.metrics.label_free import SnapshotMeasure
from training.runs import summary
from training.runs.recorder import Watch
from training.runs.summary import Cost, describe_cost, describe_networks, measure_cost

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]


def rows(text: str, network: str) -> list[tuple[str, str, int, str]]:
    """Return owner, shape, parameters and modules of each line of a network."""
    block = text.split(f"\n{network}: ")[1].split("\n\n")[0].splitlines()[1:]
    return [
        (line[2:27].strip(), line[27:42].strip(), int(line[42:54].replace(",", "")), line[54:].strip())
        for line in block
    ]


def test_layers_are_those_of_the_networks(make_experiment: MakeExperiment, make_trainer: MakeTrainer) -> None:
    """Every row has its shape, its parameters and its owners; they add up to the network."""
    trainer = make_trainer(make_experiment(("digit", "edge", "colour"), generator={"shared_layers": 2}))
    before = trainer.state.state_dict()
    text = describe_networks(trainer)
    assert_same(trainer.state.state_dict(), before)
    generator, discriminator = rows(text, "generator"), rows(text, "discriminator")
    owners = ["shared"] * 2 + ["digit, edge"] * 3 + ["colour"] * 3  # two domains alike but for their weights
    assert [owner for owner, *_ in generator] == owners
    assert (generator[4][1], generator[-1][1]) == ("1x28x28", "3x28x28")
    assert discriminator[0][0] == "digit, edge"
    assert discriminator[0][1].endswith("x14x14")
    assert discriminator[-1][:2] == ("shared", "1")
    for name, table in (("generator", generator), ("discriminator", discriminator)):
        counted = sum(weights * len(owner.split(", ")) for owner, _, weights, _ in table)
        network = trainer.state.networks[name]
        assert counted == sum(weight.numel() for weight in network.parameters())
        assert f"\n{name}: {counted:,} parameters" in text
    shared = sum(weights for owner, _, weights, _ in generator if owner == "shared")
    assert f"{shared:,} of them shared" in text


def test_hours_are_added_up() -> None:
    """A hundred steps of 0.5 s, of which every fortieth, counted up, costs two seconds more."""
    cost = Cost(0.5, 16, {"checkpoints": (2.0, 40)})
    assert cost.seconds(100) == {"steps": 50.0, "checkpoints": 6.0}


def test_steps_are_timed_with_their_lazy_penalties(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole turns of all penalties are timed, and everything that the recorder does beside the steps."""
    monkeypatch.setattr(summary, "MIN_SECONDS", 0.0001)
    penalties = [{"name": "r1", "weight": 1.0, "every": 6}, {"name": "r2", "weight": 1.0, "every": 4}]
    trainer = make_trainer(make_experiment(("digit",), discriminator={"penalties": penalties}))
    measured: list[torch.Size] = []

    def distance(images: torch.Tensor) -> float:
        measured.append(images.shape)
        return 1.0

    cost = measure_cost(trainer, Watch(measure=SnapshotMeasure("far", 3, {"digit": distance})))
    assert cost.steps_timed % 12 == 0
    assert trainer.state.steps_done == summary.WARM_UP + cost.steps_timed
    assert measured == [(3, 1, 28, 28)] * 2  # the first time reads the real images
    assert list(cost.extras) == ["metrics", "sheets", "checkpoints", "far of 3 pairs"]
    assert cost.step > 0
    assert all(seconds > 0 for seconds, _ in cost.extras.values())
    printed = describe_cost(cost, trainer.experiment)
    assert f"{sum(cost.seconds(25_000).values()) / 3600:.2f} h, of which 25,000 steps" in printed
    assert "far of 3 pairs, every 2,000 steps" in printed


def test_a_dry_run_says_how_long_it_takes(
    run_verb: RunVerb,
    write_experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints layers and hours, and nothing is written."""
    monkeypatch.setattr(summary, "MIN_SECONDS", 0.0001)
    run_verb(train, write_experiment, "--dry-run", "--runs", tmp_path / "runs")
    printed = capsys.readouterr().out
    assert "tiny: 5 steps of 4 images a domain" in printed
    assert "negative: 100 images" in printed
    assert len(rows(printed, "discriminator")) == 4
    assert "time on this machine: 0.00 h, of which 5 steps" in printed
    assert list(tmp_path.iterdir()) == [write_experiment]
