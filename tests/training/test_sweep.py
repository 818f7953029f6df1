"""Sweeps: points are trained, measured and plotted, none of them twice."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from training import sweep
from training.config.experiment import Experiment
from training.engine.state import State
from training.engine.trainer import Trainer
from training.errors import ConfigError
from training.files import write_json
from training.runs.figures import Value
from training.runs.folder import RunFolder
from training.sweep import move, read_points

RunVerb = Callable[..., None]
Sweep = Callable[..., None]
SHARED = ["--over", "generator.shared_layers=0,4"]


@pytest.fixture
def run_sweep(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> Sweep:
    """Return what sweeps over the tiny experiment, without labels by default."""

    def run(*arguments: str, label_column: str = "none") -> None:
        folders = [
            "--runs",
            tmp_path / "runs",
            "--to",
            tmp_path / "sweep",
            "--measure.pairs",
            12,
            "--measure.images",
            12,
        ]
        labels = [f"--domains.{number}.label-column={label_column}" for number in range(3)]
        run_verb(sweep, write_experiment, "--steps", 2, *folders, *labels, *arguments)

    return run


def report(tmp_path: Path) -> list[dict[str, str]]:
    """Read the rows of the sweep's report."""
    with (tmp_path / "sweep" / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_place_that_cannot_be_written_is_found_before(
    run_sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained for a report that has no place."""
    (tmp_path / "sweep").write_text("")
    with pytest.raises(SystemExit, match="2"):
        run_sweep(*SHARED)
    assert f"{tmp_path}/sweep" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_each_size_has_the_architecture_that_is_chosen_for_it(
    run_verb: RunVerb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe that names none is completed for every point."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("L", (40, 40), 10 * number).save(tmp_path / name / f"{number}.png")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("".join(f'[[domains]]\nsource = "{tmp_path / name}"\n' for name in "ab"))
    run_verb(sweep, recipe, "--over", "pixels=16,32", "--steps", 2, "--dry-run")
    assert capsys.readouterr().out.count("0 of 2 steps are done") == 2
    with pytest.raises(SystemExit, match="2"):
        run_verb(sweep, recipe, "--over", "pixels=16,48", "--dry-run")
    assert "pixels = 48: allowed are 16, 28, 32" in capsys.readouterr().err


def test_a_sweep_goes_on_where_it_was(run_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within its second point and begun again with a third, only what is missing is done."""
    step, steps = Trainer.step, []

    def stop_in_the_second(trainer: Trainer) -> None:
        steps.append(trainer.experiment.generator.shared_layers)
        if steps == [0, 0, 4]:
            raise KeyboardInterrupt
        step(trainer)

    monkeypatch.setattr(Trainer, "step", stop_in_the_second)
    with pytest.raises(SystemExit, match="130"):
        run_sweep(*SHARED)
    assert [row["generator.shared_layers"] for row in report(tmp_path)] == ["0"]
    run_sweep("--over", "generator.shared_layers=0,4,2")
    assert steps == [0, 0, 4, 4, 4, 2, 2]
    rows = report(tmp_path)
    assert [row["generator.shared_layers"] for row in rows] == ["0", "4", "2"]
    assert [row["run"] for row in rows] == ["00000_tiny", "00001_tiny", "00002_tiny"]
    for row in rows:
        quality = RunFolder.open(tmp_path / "runs" / row["run"]).quality(2)
        assert float(row["pixel_agreement.edge.binarised"]) == quality["pixel_agreement"]["edge"]["binarised"]
    assert (tmp_path / "sweep" / "quality.png").stat().st_size > 1000


def test_lists_are_swept_over_and_other_classifiers_measure_again(run_sweep: Sweep, tmp_path: Path) -> None:
    """A list is one cell of the report; a quality that other classifiers gave is not taken for theirs."""
    augmentations = ["--over", 'discriminator.augmentations=[],["translation"]']
    run_sweep(*augmentations)
    assert [row["discriminator.augmentations"] for row in report(tmp_path)] == ["[]", '["translation"]']
    file = RunFolder.open(tmp_path / "runs" / "00000_tiny").quality_file
    write_json(file, json.loads(file.read_text()) | {"classifier_accuracy": {"digit": 0.5}})
    run_sweep(*augmentations)
    assert "classifier_accuracy" not in json.loads(file.read_text())


def test_a_dry_sweep_says_how_far_it_is(run_sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every point is checked and named with its steps, and nothing is written."""
    run_sweep("--over", "generator.shared_layers=0,4", "--over", "loss=ce,hinge", "--dry-run")
    message = capsys.readouterr().out
    assert "generator.shared_layers = 4, loss = hinge\n  0 of 2 steps are done" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--over", "generator.shared_layers=0,9"], "generator.shared_layers = 9"),
        ([*SHARED, "--measure.classifiers", "nowhere"], "error: nowhere/digits_identity_"),
    ],
)
def test_what_a_later_point_lacks_is_an_error_before_the_first(
    run_sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong value or a missing classifier stops the sweep before any training."""
    with pytest.raises(SystemExit, match="2"):
        run_sweep(*arguments, label_column="label")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_point_that_diverges_leaves_the_others(
    run_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row has no quality, and the sweep goes on."""

    def break_one(state: State) -> list[str]:
        return [] if len(state.generator.trunk) else ["generator"]

    monkeypatch.setattr(State, "not_finite", break_one)
    run_sweep(*SHARED)
    assert [bool(row["pixel_agreement.edge.binarised"]) for row in report(tmp_path)] == [False, True]


def test_panels_are_what_differs() -> None:
    """A number alike in all points is not plotted; the first field is the axis, the others name the curves."""
    places = [(0, "ce"), (1, "ce"), (1, "wgan")]
    values = [0.5, 0.75, 0.25]
    rows: list[dict[str, Value]] = [
        {"shared": shared, "loss": loss, "run": "a", "pairs": 8, "agreement": value}
        for (shared, loss), value in zip(places, values, strict=True)
    ]
    assert sweep.by_measure(rows, ["shared", "loss"]) == {
        "agreement": {"loss = ce": ([0, 1], [0.5, 0.75]), "loss = wgan": ([1], [0.25])}
    }
    swapped = sweep.by_measure([*rows[1:], rows[0] | {"shared": None}], ["shared", "loss"])
    assert swapped["agreement"]["loss = ce"] == (["1", "None"], [0.75, 0.5])
    del rows[2]["agreement"]
    assert len(sweep.by_measure(rows, ["shared", "loss"])["agreement"]) == 1


MakeExperiment = Callable[..., Experiment]


def test_points_are_all_combinations() -> None:
    """The last field changes first; values are numbers, words, truths or nothing."""
    assert read_points(["generator.shared_layers=0,null", "loss=ce,wgan", "warmdown=0.5"]) == [
        {"generator.shared_layers": shared, "loss": loss, "warmdown": 0.5}
        for shared in (0, None)
        for loss in ("ce", "wgan")
    ]


def test_a_value_may_be_a_list() -> None:
    """A comma within brackets parts no values."""
    assert [*read_points(["generator.betas=[0.5,0.9],[0.0,0.9]"])] == [
        {"generator.betas": betas} for betas in ([0.5, 0.9], [0.0, 0.9])
    ]


def test_a_point_changes_its_fields_alone(make_experiment: MakeExperiment) -> None:
    """Fields of networks and of numbered entries are reached, and the rest stays as it was."""
    experiment = make_experiment(couplings=[{"name": "weights", "weight": 1.0}], generator={"shared_layers": 2})
    point = {"generator.shared_layers": 0, "domains.1.transform": "negative", "couplings.0.weight": 5, "seed": 3}
    expected = make_experiment(couplings=[{"name": "weights", "weight": 5.0}], generator={"shared_layers": 0}, seed=3)
    moved = move(experiment, point)
    assert moved.domains[1].transform == "negative"
    assert move(moved, {"domains.1.transform": "edge"}) == expected


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "name one field or more"),
        (["seed=1", "seed=2"], r"over = \['seed', 'seed'\].+each once"),
        (["seed"], "'seed': must be FIELD=VALUE,VALUE"),
        (["=1"], "'=1': must be FIELD=VALUE"),
        (["genrator.width=1"], "'genrator.width': an experiment has no such field"),
        (["domains.7.name=a"], "'domains.7.name': an experiment has no such field"),
        (["seed.deep=1"], "'seed.deep': an experiment has no such field"),
        (["generator.wdth=1"], "generator.wdth = 1: Unexpected"),
        (["generator.shared_layers=9"], "generator.shared_layers = 9"),
        (["loss=huber"], "loss = 'huber': must be one of"),
    ],
)
def test_a_wrong_point_is_refused(make_experiment: MakeExperiment, over: list[str], message: str) -> None:
    """What is said names the field, the value and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        move(make_experiment(), read_points(over)[0])
