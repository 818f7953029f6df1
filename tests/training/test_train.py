"""Whole runs: the summary before, what they write, how they end, and that a killed one goes on exactly."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from training import train
from training.config.experiment import Experiment
from training.engine.trainer import Trainer
from training.errors import DivergedError
from training.metrics.label_free import SnapshotMeasure
from training.runs.folder import RunFolder, list_checkpoints, load_checkpoint
from training.runs.recorder import Recorder, Watch
from training.train import Cost, describe_cost, describe_networks, measure_cost

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
ROOT = Path(__file__).parents[2]
STEPS = 100
CPU = ["--machine.threads", 1, "--machine.accelerator", "cpu"]
LONG = ["--steps", STEPS, "--log-every", 10, "--checkpoint-every", 15, "--warmdown", 0.5]
LONG += CPU


def metrics(run: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same(a: object, b: object, where: str = "") -> None:
    """Compare two states to the bit, naming the first place where they differ."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            assert_same(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        assert a == b, where


KILLED = """
import os, signal
from training import train
from training.engine.trainer import Trainer
step = Trainer.step
def killed(trainer):
    if trainer.state.steps_done == 43:
        os.kill(os.getpid(), signal.SIGKILL)
    step(trainer)
Trainer.step = killed
train.main()
"""


def begin_and_kill(arguments: list[str]) -> None:
    """Train in a process of its own, which SIGKILL ends between two checkpoints."""
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.timeout(300)  # three trainings, two of them in processes of their own
def test_a_killed_run_goes_on_exactly(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """Killed by SIGKILL and resumed in another process, a run equals one that ran through, to the bit."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_verb(train, write_experiment, "--runs", whole, *LONG)
    run = killed / "00000_tiny"
    begin_and_kill([str(write_experiment), "--runs", str(killed), *map(str, LONG)])
    assert 0 < load_checkpoint(run / "checkpoints")["steps_done"] < 43
    resume = [sys.executable, "-m", "training.train", str(run), "--machine.threads", "1"]
    subprocess.run(resume, cwd=ROOT, check=True, capture_output=True)

    expected, resumed = (load_checkpoint(path / "checkpoints") for path in (whole / "00000_tiny", run))
    assert resumed["steps_done"] == STEPS
    assert_same(resumed, expected)
    assert metrics(run) == metrics(whole / "00000_tiny")
    sheets = [folder / "samples" / f"step_{STEPS:08d}.png" for folder in (run, whole / "00000_tiny")]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_loses_nothing(
    run_verb: RunVerb,
    write_experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """It saves the step that it is in, says how it goes on, and goes on to what it would have been."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    run_verb(train, write_experiment, "--runs", tmp_path / "whole", *CPU)
    step = Trainer.step

    def interrupted(trainer: Trainer) -> None:
        if trainer.state.steps_done == 2:
            signal.raise_signal(number)
        step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run_verb(train, write_experiment, "--runs", tmp_path / "stopped", *CPU)
    monkeypatch.setattr(Trainer, "step", step)
    run = tmp_path / "stopped/00000_tiny"
    assert f"stopped; resume with: python -m training.train {run}\n" in capsys.readouterr().out
    assert load_checkpoint(run / "checkpoints")["steps_done"] == 3
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    run_verb(train, run, *CPU)
    expected, resumed = (load_checkpoint(one / "checkpoints") for one in (tmp_path / "whole/00000_tiny", run))
    assert_same(resumed, expected)
    assert metrics(run) == metrics(tmp_path / "whole/00000_tiny")


def test_a_run_writes_all_it_promises(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """Metrics, sheets and checkpoints come at their steps, and all of them at the last."""
    every = ["--log-every", 2, "--sample-every", 3, "--checkpoint-every", 4]
    run_verb(train, write_experiment, "--runs", tmp_path, *every)
    run = tmp_path / "00000_tiny"
    assert [line["step"] for line in metrics(run)] == [2, 4, 5]
    names = ["discriminator_loss", "r1", "real_logit", "fake_logit", "generator_loss"]
    by_domain = ["discriminator_loss", "real_loss", "fake_loss", "real_accuracy", "fake_accuracy", "held_out_accuracy"]
    names += [f"{name}/{domain}" for name in by_domain for domain in ("digit", "edge", "negative")]
    assert set(metrics(run)[0]) == {"step", *names}  # the penalty was due at the first step alone
    assert set(metrics(run)[1]) == {"step", *names} - {"r1"}
    assert sorted(file.name for file in (run / "samples").iterdir()) == ["step_00000003.png", "step_00000005.png"]
    assert [file.name for file in list_checkpoints(run / "checkpoints")] == ["step_00000004.pt", "step_00000005.pt"]
    with Image.open(run / "samples" / "step_00000005.png") as sheet:
        assert sheet.size == (3 * 28, 32 * 28)  # columns are domains, rows are latents
    with Image.open(run / "losses.png") as plot, Image.open(run / "training.gif") as film:
        assert plot.size == (1320, 1200)  # ten metrics in three columns, with the curves of domains together
        assert (film.size, getattr(film, "n_frames", 1)) == ((3 * 28, 32 * 28), 2)


def test_a_run_without_a_checkpoint_begins_anew(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """A run killed before its first checkpoint is resumed like any other."""
    run_verb(train, write_experiment, "--runs", tmp_path)
    run = tmp_path / "00000_tiny"
    state, lines = load_checkpoint(run / "checkpoints"), metrics(run)
    for file in list_checkpoints(run / "checkpoints"):
        file.unlink()
    run_verb(train, run)
    assert_same(load_checkpoint(run / "checkpoints"), state)
    assert metrics(run) == lines


def test_a_full_disk_is_one_line(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that the disk does not take is named with the cause, without a traceback."""
    run_verb(train, write_experiment, "--runs", tmp_path / "room", *CPU)  # what is cached is there now
    capfd.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, hard))
    try:
        with pytest.raises(SystemExit, match="2"):
            run_verb(train, write_experiment, "--runs", tmp_path / "runs", *CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert "checkpoints/step_00000005.pt cannot be written: File too large; make room, and run the same" in error
    assert list((tmp_path / "runs/00000_tiny/checkpoints").iterdir()) == []


def test_a_resumed_run_keeps_its_experiment(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that would change the experiment of a run is refused."""
    run = RunFolder.create(tmp_path, make_experiment())
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, run.path, "--steps", 9)
    assert "cannot be changed" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_a_diverged_run_stops_before_it_saves(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path, part: str
) -> None:
    """A weight that is not a number stops the run, names what broke and leaves the good checkpoint."""
    experiment = make_experiment(steps=10, log_every=4, checkpoint_every=2)
    trainer, folder = make_trainer(experiment), RunFolder.create(tmp_path, experiment)

    def break_after_five(*_: object) -> None:
        if trainer.state.steps_done == 5:
            with torch.no_grad():
                next(trainer.state.networks[part].parameters()).fill_(float("nan"))

    trainer.state.generator.register_forward_pre_hook(break_after_five)
    with pytest.raises(DivergedError, match=f"{part}.+lower learning rate"):
        train.train(trainer, folder)
    assert [file.name for file in list_checkpoints(folder.checkpoints)] == ["step_00000002.pt", "step_00000004.pt"]
    assert [line["step"] for line in metrics(folder.path)] == [4]
    again = make_trainer(experiment)
    again.state.load_state_dict(load_checkpoint(folder.checkpoints))
    assert again.state.steps_done == 4
    assert again.state.not_finite() == []
    again.step()
    assert again.state.not_finite() == []


def test_weights_that_broke_in_the_last_update_are_not_saved(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """All losses may still be finite when a gradient has just spoilt a weight."""
    trainer = make_trainer(make_experiment())
    trainer.step()
    record = Recorder(RunFolder(tmp_path), trainer)
    record.check()
    with torch.no_grad():
        next(trainer.state.generator.parameters()).fill_(float("inf"))
    with pytest.raises(DivergedError, match=r"^generator became infinite"):
        record.check()
    record.close()


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
    monkeypatch.setattr(train, "MIN_SECONDS", 0.0001)
    penalties = [{"name": "r1", "weight": 1.0, "every": 6}, {"name": "r2", "weight": 1.0, "every": 4}]
    trainer = make_trainer(make_experiment(("digit",), discriminator={"penalties": penalties}))
    measured: list[torch.Size] = []

    def distance(images: torch.Tensor) -> float:
        measured.append(images.shape)
        return 1.0

    cost = measure_cost(trainer, Watch(measure=SnapshotMeasure("far", 3, {"digit": distance})))
    assert cost.steps_timed % 12 == 0
    assert trainer.state.steps_done == train.WARM_UP + cost.steps_timed
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
    monkeypatch.setattr(train, "MIN_SECONDS", 0.0001)
    run_verb(train, write_experiment, "--dry-run", "--runs", tmp_path / "runs")
    printed = capsys.readouterr().out
    assert "tiny: 5 steps of 4 images a domain" in printed
    assert "negative: 100 images" in printed
    assert len(rows(printed, "discriminator")) == 4
    assert "time on this machine: 0.00 h, of which 5 steps" in printed
    assert list(tmp_path.iterdir()) == [write_experiment]
