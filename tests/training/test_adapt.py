"""The verb `adapt`: it trains each seed once, measures the last step, and prints the mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import adapt, train
from training.config.experiment import Experiment, load_experiment
from training.data.dataset import load_split
from training.engine.state import build_discriminator
from training.errors import RunError
from training.runs.folder import RunFolder, find_run, list_checkpoints, load_adapted, load_checkpoint, save_checkpoint

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
CPU = ["--machine.threads", 1, "--machine.accelerator", "cpu"]


@pytest.fixture
def adaptation(write_experiment: Path) -> Path:
    """Return an experiment file of two domains, the first of which is labelled."""
    text = write_experiment.read_text().replace("[[domains]]", "[[domains]]\nlabelled = true", 1)
    head, last = text.rsplit("[[domains]]", 1)
    lessons = '[[lessons]]\nname = "labels"\nweight = 10.0\n'
    write_experiment.write_text(f"{head}{lessons}{last[last.index('[generator]') :]}")
    return write_experiment


def test_a_stopped_adaptation_goes_on(run_verb: RunVerb, adaptation: Path, tmp_path: Path) -> None:
    """A run for each seed begins; later, what is trained is left as it is and what was stopped is ended."""
    options = ["--runs", tmp_path / "runs", "--checkpoint-every", 3, *CPU]
    run_verb(adapt, adaptation, "--seeds", 4, 5, *options)
    done, stopped = (tmp_path / "runs" / f"0000{number}_tiny" for number in range(2))
    whole = list_checkpoints(stopped / "checkpoints")[-1].read_bytes()
    list_checkpoints(stopped / "checkpoints")[-1].unlink()
    times = [file.stat().st_mtime_ns for file in list_checkpoints(done / "checkpoints")]
    run_verb(adapt, adaptation, "--seeds", 4, 5, *options)
    assert [file.stat().st_mtime_ns for file in list_checkpoints(done / "checkpoints")] == times
    assert list_checkpoints(stopped / "checkpoints")[-1].read_bytes() == whole
    seeds = [RunFolder.open(run).experiment().seed for run in sorted((tmp_path / "runs").glob("*_*"))]
    assert seeds == [4, 5]


def test_the_last_step_is_measured_on_all_test_images(
    run_verb: RunVerb, adaptation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The EMA discriminator of the last checkpoint classifies the 100 images of every domain."""
    run_verb(adapt, adaptation, "--seeds", 4, 5, "--runs", tmp_path / "runs", *CPU)
    message = capsys.readouterr().out.splitlines()[-2:]
    shares = []
    for path in sorted((tmp_path / "runs").glob("*_*")):
        run = RunFolder.open(path)
        classifiers, steps = load_adapted(run)
        measured = json.loads(run.accuracy_file.read_text())
        assert measured == run.accuracy(steps) == run.accuracy(5)
        assert measured["images"] == {"digit": 100, "edge": 100}
        edges = load_split(run.experiment().domains[1], "test", (28, 28))
        right = classifiers["edge"](edges.images).argmax(1) == edges.labels
        assert measured["accuracy"]["edge"] == pytest.approx(float(right.float().mean()))
        shares.append(measured["accuracy"]["edge"])
    deviation = abs(shares[0] - shares[1]) / 2**0.5  # the standard deviation of two
    assert message[1] == f"edge: {sum(shares) / 2:.2%} +- {deviation:.2%} of real test images classified right"


def test_a_domain_is_read_through_its_own_stem(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Bytes go through the range of the images that the discriminator saw, and through the EMA alone."""
    lessons = [{"name": "labels", "weight": 1.0}]
    he = {"initialisation": "he"}
    experiment = make_experiment(("known", "edge"), lessons=lessons, discriminator=he)
    run, teacher = RunFolder.create(tmp_path, experiment), build_discriminator(experiment).eval()
    save_checkpoint(run.checkpoints, 3, {"steps_done": 3, "teacher": teacher.state_dict()})
    images = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    classifiers, steps = load_adapted(run)
    assert steps == 3
    expected = teacher.classify({"edge": images / 127.5 - 1})["edge"]
    torch.testing.assert_close(classifiers["edge"](images), expected)
    assert not torch.allclose(classifiers["known"](images), expected)


def test_a_run_folder_gives_its_experiment(run_verb: RunVerb, adaptation: Path, tmp_path: Path) -> None:
    """A run that `train` has begun is measured, and no other run is made."""
    run_verb(train, adaptation, "--runs", tmp_path / "runs", "--seed", 7, *CPU)
    run = tmp_path / "runs" / "00000_tiny"
    run_verb(adapt, run, *CPU)
    assert RunFolder.open(run).accuracy(5)["steps"] == load_checkpoint(run / "checkpoints")["steps_done"]
    assert {entry.name for entry in (tmp_path / "runs").iterdir()} == {".lock", "00000_tiny"}
    experiment = load_experiment(adaptation)
    assert find_run(tmp_path / "runs", experiment) is None  # that of another seed


def test_a_seed_that_is_none_is_named(
    run_verb: RunVerb, adaptation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything is made."""
    with pytest.raises(SystemExit, match="2"):
        run_verb(adapt, adaptation, "--seeds", 0, -1, "--runs", tmp_path / "runs")
    assert capsys.readouterr().err.startswith("error: seed = -1: ")
    assert not (tmp_path / "runs").exists()


def test_the_run_that_is_named_is_measured(run_verb: RunVerb, adaptation: Path, tmp_path: Path) -> None:
    """And not a later one of the same experiment."""
    runs = tmp_path / "runs"
    for _ in range(2):
        run_verb(train, adaptation, "--runs", runs, *CPU)
    run_verb(adapt, runs / "00000_tiny", *CPU)
    assert [file.parent.name for file in runs.glob("*/accuracy.json")] == ["00000_tiny"]


def test_the_run_that_came_farthest_is_found(run_verb: RunVerb, adaptation: Path, tmp_path: Path) -> None:
    """A twin that was stopped sooner does not hide it; of equals it is the last."""
    for _ in range(3):
        run_verb(train, adaptation, "--runs", tmp_path / "runs", "--checkpoint-every", 2, *CPU)
    runs = sorted((tmp_path / "runs").glob("*_*"))
    list_checkpoints(runs[2] / "checkpoints")[-1].unlink()
    found = find_run(tmp_path / "runs", RunFolder.open(runs[0]).experiment())
    assert found is not None
    assert found.path == runs[1]


def test_an_experiment_without_auxiliary_losses_is_refused(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment without auxiliary losses is an error before anything is trained, and so is its run."""
    with pytest.raises(SystemExit, match="2"):
        run_verb(adapt, write_experiment, "--runs", tmp_path / "runs")
    assert "lessons = (): an adaptation needs auxiliary losses" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    run = RunFolder.create(tmp_path / "runs", load_experiment(write_experiment))
    save_checkpoint(run.checkpoints, 1, {"steps_done": 1})
    with pytest.raises(RunError, match="_tiny has no classifier: its experiment has no auxiliary losses"):
        load_adapted(run)
    with pytest.raises(RunError, match=r"not measured after step 1: python -m training\.adapt .+_tiny"):
        run.accuracy(1)


def test_several_processes_are_refused(
    run_verb: RunVerb,
    adaptation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The runs of an adaptation come one after another, so torchrun is an error before anything is trained."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        run_verb(adapt, adaptation, "--runs", tmp_path / "runs")
    assert "an adaptation needs a single process, and torchrun started 2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
