"""What a run records of itself: previews, measured snapshots, and the best of them."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.test_train import assert_same, metrics
from training import evaluate, export, train, train_classifier
from training.config.experiment import Experiment
from training.engine.machine import Machine
from training.engine.trainer import Trainer
from training.errors import RunError
from training.files import read_json
from training.metrics import label_free
from training.metrics.label_free import SnapshotMeasure, choose_measure
from training.networks.coupled import generate, latents_of_seeds
from training.runs import recorder
from training.runs.folder import RunFolder, chosen_by, list_checkpoints, load_average, load_checkpoint, snapshot_step
from training.runs.recorder import Recorder, Watch
from training.train import prepare

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
MakeTrainer = Callable[[Experiment], Trainer]
OPTIONS = ["--steps", 6, "--measure-every", 2, "--log-every", 3, "--checkpoint-every", 2, "--warmdown", 0.5]
OPTIONS += ["--machine.accelerator", "cpu", "--machine.threads", 1]
DOMAINS = ("digit", "edge", "negative")


@pytest.fixture
def classifiers(run_verb: RunVerb, write_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of trained evaluation classifiers, with which few pairs measure a snapshot."""
    monkeypatch.setattr(label_free, "PAIRS", 40)
    run_verb(train_classifier, write_experiment, "--classifiers", tmp_path / "classifiers", "--epochs", 1)
    return tmp_path / "classifiers"


def test_snapshots_are_measured_and_the_best_is_kept(
    run_verb: RunVerb, write_experiment: Path, classifiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a line of metrics, and an event; evaluate and export take the best unless told otherwise."""
    run_verb(train, write_experiment, "--runs", tmp_path, "--classifiers", classifiers, *OPTIONS)
    assert "snapshots: frechet_distance" in capsys.readouterr().out
    run = RunFolder.open(tmp_path / "00000_tiny")
    lines = {int(line["step"]): line for line in metrics(run.path) if "frechet_distance" in line}
    assert list(lines) == [2, 4, 6]
    for line in lines.values():
        parts = [line[f"frechet_distance/{name}"] for name in DOMAINS]
        assert line["frechet_distance"] == pytest.approx(sum(parts) / 3)
    best = min(lines, key=lambda step: lines[step]["frechet_distance"])
    assert [file.name for file in list_checkpoints(run.best)] == [f"step_{best:08d}.pt"]
    assert chosen_by(run) == {"measure": "frechet_distance", "distance": lines[best]["frechet_distance"]}
    assert (snapshot_step(run), snapshot_step(run, "last")) == (best, 6)

    measure = prepare(run.experiment(), Machine(accelerator="cpu"), classifiers=classifiers).watch.measure
    assert measure
    generator, _ = load_average(run)
    again = measure(generate(generator, latents_of_seeds(run.experiment().latent_prior, measure.seeds)))
    assert again == pytest.approx({name: lines[best][name] for name in again})

    events = EventAccumulator(str(run.events)).Reload()
    assert [event.step for event in events.Scalars("frechet_distance/edge")] == [2, 4, 6]
    for options, step in (([], best), (["--snapshot", "last"], 6)):
        run_verb(evaluate, run.path, "--classifiers", classifiers, "--pairs", 20, *options)
        quality = read_json(run.quality_file, dict)
        assert quality["steps"] == step
        assert ("chosen_by" in quality) == (not options)
        run_verb(export, run.path, "--models", tmp_path / "models", *options)
    written = sorted(entry.name for entry in (tmp_path / "models/tiny").iterdir())
    assert written == ["1", "2", "README.md", "config.pbtxt", "directions.png", "sheet.png"]


def test_a_measured_run_goes_on_exactly(
    run_verb: RunVerb, write_experiment: Path, classifiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two snapshots and resumed, it has the same curve and the same best, to the bit."""
    options = ["--classifiers", classifiers]
    run_verb(train, write_experiment, "--runs", tmp_path / "whole", *options, *OPTIONS)
    step = Trainer.step

    def interrupted(trainer: Trainer) -> None:
        if trainer.state.steps_done == 4:
            signal.raise_signal(signal.SIGINT)
        step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run_verb(train, write_experiment, "--runs", tmp_path / "stopped", *options, *OPTIONS)
    monkeypatch.setattr(Trainer, "step", step)
    whole, stopped = (RunFolder.open(tmp_path / name / "00000_tiny") for name in ("whole", "stopped"))
    assert len(metrics(stopped.path)) < len(metrics(whole.path))
    run_verb(train, stopped.path, *options, "--machine.threads", 1)
    assert metrics(stopped.path) == metrics(whole.path)
    for folder in ("best", "checkpoints"):
        assert_same(load_checkpoint(stopped.path / folder), load_checkpoint(whole.path / folder))


def test_any_measure_may_choose(make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """The least distance is kept; what another measure chose is replaced, as the two do not compare."""
    trainer = make_trainer(make_experiment())
    run = RunFolder.create(tmp_path, trainer.experiment)

    def record(name: str, distances: list[float]) -> list[str]:
        values = iter(distances)
        measure = SnapshotMeasure(name, 2, {domain: lambda _: next(values) for domain in ("digit", "edge")})
        taken = Recorder(run, trainer, Watch(measure=measure))
        said = []
        for _ in range(len(distances) // 2):
            trainer.step()
            said.append(taken.measure())
        taken.close()
        return said

    assert record("near", [4.0, 6.0, 1.0, 3.0, 8.0, 9.0]) == [
        "step 1: near 5, the best",
        "step 2: near 2, the best",
        "step 3: near 8.5, the best was 2",
    ]
    assert (chosen_by(run), snapshot_step(run)) == ({"measure": "near", "distance": 2.0}, 2)
    record("near", [2.0, 2.0])  # not less than before
    assert snapshot_step(run) == 2
    record("far", [7.0, 7.0])
    assert (chosen_by(run), snapshot_step(run)) == ({"measure": "far", "distance": 7.0}, 5)
    assert run.curves()["near/digit"] == ([1, 2, 3, 4], [4.0, 1.0, 8.0, 2.0])


def test_a_run_that_ends_before_its_first_snapshot_says_so(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last checkpoint is then what is measured and exported."""
    run_verb(train, write_experiment, "--runs", tmp_path, *OPTIONS, "--measure-every", 7)
    assert "snapshots are not measured: the run ends before measure_every = 7 steps" in capsys.readouterr().out
    run = RunFolder.open(tmp_path / "00000_tiny")
    assert not run.best.exists()
    assert chosen_by(run) == {}
    assert snapshot_step(run) == load_average(run)[1] == 6


def test_a_run_without_classifiers_is_measured_without_labels(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of a public network take their place, and the best snapshot is kept by them."""
    monkeypatch.setattr(label_free, "PAIRS_WITHOUT_LABELS", 8)
    monkeypatch.setattr(label_free, "MAX_REAL_WITHOUT_LABELS", 8)
    monkeypatch.setattr(label_free, "SNAPSHOT_SIDE", 32)
    options = ["--classifiers", tmp_path / "none", *OPTIONS, "--measure-every", 3]
    run_verb(train, write_experiment, "--runs", tmp_path, *options)
    run = RunFolder.open(tmp_path / "00000_tiny")
    assert chosen_by(run)["measure"] == "label_free_distance"
    assert run.curves()["label_free_distance/edge"][0] == [3, 6]


def test_the_first_measure_that_can_be_made_is_taken(make_experiment: MakeExperiment) -> None:
    """Those before it have their reasons, which are told if there is none at all."""
    device = Machine(accelerator="cpu").device("a test")

    def failing(*_: object) -> SnapshotMeasure:
        raise RunError("no classifiers")

    def other(*_: object) -> SnapshotMeasure:
        return SnapshotMeasure("other", 2, {})

    choose = partial(choose_measure, make_experiment(), {}, Path("none"), device)
    measure, reason = choose(measures=[failing, other])
    assert measure
    assert (measure.name, reason) == ("other", "")
    assert choose(measures=[failing, failing]) == (None, "no classifiers; no classifiers")


def test_previews_come_by_time(
    make_experiment: MakeExperiment, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first a minute after the start, then after 2, 4, 8 minutes; late ones do not pile up."""
    now = 1000.0
    monkeypatch.setattr("training.runs.recorder.time.monotonic", lambda: now)
    trainer = make_trainer(make_experiment())
    taken = Recorder(RunFolder.create(tmp_path, trainer.experiment), trainer)
    due = []
    for second in range(0, 1000, 10):
        now = 1000.0 + second
        due += [second] if taken.preview_is_due() else []
    taken.close()
    assert due == [60, 120, 240, 480, 960]


def test_previews_are_sheets_and_events(
    run_verb: RunVerb, write_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie among those that come by steps, and TensorBoard shows the same pixels."""
    monkeypatch.setattr(recorder, "FIRST_PREVIEW", 1e-6)
    run_verb(train, write_experiment, "--runs", tmp_path, "--steps", 4)
    run = RunFolder.open(tmp_path / "00000_tiny")
    assert [file.stem for file in sorted(run.samples.iterdir())] == [f"step_{step:08d}" for step in (1, 2, 3, 4)]
    shown = EventAccumulator(str(run.events)).Reload().Images("samples")
    assert [event.step for event in shown] == [1, 2, 3, 4]
    with (
        Image.open(io.BytesIO(shown[-1].encoded_image_string)) as event,
        Image.open(run.samples / "step_00000004.png") as sheet,
    ):
        assert event.convert("L").tobytes() == sheet.tobytes()
