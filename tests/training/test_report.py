"""Comparisons of runs, and the page of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch
from PIL import Image

from training import report
from training.config.experiment import Experiment
from training.engine.state import build_generator
from training.files import write_json
from training.networks.coupled import generate, latents_of_seeds
from training.runs.folder import MetricsLog, RunFolder, load_average, note_machine, save_best, save_checkpoint

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def runs(make_experiment: MakeExperiment, tmp_path: Path) -> list[RunFolder]:
    """Return two runs that differ in the discriminator's penalty, the second of them measured."""
    folders = []
    for penalty in ("none", "r1"):
        experiment = make_experiment(discriminator={"penalty": penalty})
        folders.append(RunFolder.create(tmp_path / "runs", experiment))
        with closing(MetricsLog(folders[-1].path, 0)) as log:
            log.write(10, {"loss": 0.75} | ({"r1": 4.0} if penalty == "r1" else {}))
            log.write(20, {"loss": 0.5})
    write_json(folders[1].quality_file, {"steps": 20, "pixel_agreement": {"edge": {"of": "digit"}}})
    return folders


def test_the_report_has_what_differs_and_what_came_of_it(runs: list[RunFolder]) -> None:
    """Fields alike in all runs are left out; the last of each metric and all of the quality are there."""
    one, other = (str(run.path) for run in runs)
    assert report.compare(runs) == [
        {"name": "discriminator.penalty", one: "none", other: "r1"},
        {"name": "loss", one: 0.5, other: 0.5},
        {"name": "r1", one: None, other: 4.0},
        {"name": "quality.steps", one: None, other: 20},
        {"name": "quality.pixel_agreement.edge.of", one: None, other: "digit"},
    ]


def test_a_field_that_is_new_is_no_difference(runs: list[RunFolder]) -> None:
    """A run begun before there was the field has what it is by default."""
    file = runs[0].path / "experiment.json"
    old = json.loads(file.read_text())
    del old["experiment"]["domains"][0]["balanced"]
    write_json(file, old)
    assert [row["name"] for row in report.compare(runs)][0:2] == ["discriminator.penalty", "loss"]


def test_the_verb_writes_report_and_curves(
    run_verb: RunVerb, runs: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is printed too; the folder is made where there is none."""
    run_verb(report, *(run.path for run in runs), "--to", tmp_path / "deep" / "out")
    assert "| discriminator.penalty | none | r1 |" in capsys.readouterr().out
    written = sorted(file.name for file in (tmp_path / "deep" / "out").iterdir())
    assert written == ["metrics.png", "report.csv", "report.md"]


def test_a_run_without_metrics_is_an_error(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to draw yet, and nothing is written."""
    run = RunFolder.create(tmp_path / "runs", make_experiment())
    with pytest.raises(SystemExit, match="2"):
        run_verb(report, run.path, "--to", tmp_path / "out")
    assert "00000_tiny: no metrics yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


PAIRS: dict[str, Any] = {
    "latents": "index 0 of seeds 0 to 9",
    "pixel_agreement": {
        "edge": {
            "of": "digit",
            "binarised": 0.96444,
            "within_25": 0.8125,
            "within_51": 0.9375,
            "floor": {"binarised": 0.75, "within_25": 0.5, "within_51": 0.625},
        }
    },
    "class_agreement": {"edge": 0.9375},
    "class_agreement_of_real_pairs": {"edge": 0.9875},
    "doubtful_images": {"edge": {"below": 0.9, "generated": 0.125, "real": 0.0625}},
    "class_balance": {"digit": 0.96875, "edge": 0.984375},
    "frechet_distance": {"digit": {"drawn": 7.36, "floor": 3.25}, "edge": {"drawn": 9.875, "floor": 2.5}},
    "classifier_accuracy": {"digit": 0.9958, "edge": {"closed": 1.0, "thin": 0.99}},  # attributes
}


def leave(folder: Path, experiment: Experiment, steps: int, quality: Mapping[str, Any] | None = None) -> RunFolder:
    """Make the folder of a run after so many steps, and perhaps measured."""
    run = RunFolder.create(folder, experiment)
    state = {"steps_done": steps, "average": build_generator(experiment).state_dict()}
    save_checkpoint(run.checkpoints, steps, state)
    if quality:
        write_json(run.quality_file, {"steps": steps, **quality})
    return run


def table(page: Path, title: str) -> list[dict[str, str]]:
    """Read the rows of the table below a title."""
    lines = page.read_text().split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("|")
    ]
    return [dict(zip(heads, row, strict=False)) for row in rows]


def test_every_measure_of_every_domain_is_a_cell(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    """Floors stand in brackets, attributes have their mean, and what a lone domain cannot have is empty."""
    pair = leave(tmp_path / "runs", make_experiment(name="pair", steps=300), 300, PAIRS)
    alone = PAIRS | {"pixel_agreement": {}, "class_agreement": {}}
    lone = leave(tmp_path / "runs", make_experiment(("digit",), name="lone", steps=300), 300, alone)
    page = tmp_path / "docs" / "results.md"
    run_verb(report, pair.path, lone.path, "--to", page)
    single, digit, edge = table(page, "Generated images")
    assert edge == {
        "experiment": "pair",
        "domain": "edge",
        "steps": "300",
        "samples": "![](results/pair/edge.png)",
        "pixels agree, binarised": "0.9644 (0.7500)",
        "within 51": "0.9375 (0.6250)",
        "within 25": "0.8125 (0.5000)",
        "published": "",
        "classes agree": "0.9375 (0.9875)",
        "doubtful": "12.50% (6.25%)",
        "class balance": "0.9844",
        "Frechet distance": "9.88 (2.50)",
        "distance without labels": "",
        "its classifier": "99.50%",
    }
    assert digit["Frechet distance"] == single["Frechet distance"] == "7.36 (3.25)"
    assert single["experiment"] == "lone"
    assert single["classes agree"] == single["within 51"] == ""
    assert "index 0 of seeds 0 to 9." in page.read_text()


def test_strips_are_generated_by_the_run(run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Each domain has a picture of the first eight seeds, in a row."""
    run = leave(tmp_path / "runs", make_experiment(steps=300), 300, PAIRS)
    run_verb(report, run.path, "--to", tmp_path / "page.md")
    generator, _ = load_average(run)
    generated = generate(generator, latents_of_seeds(run.experiment().latent_prior, range(8)))
    files = sorted(file.name for file in (tmp_path / "page" / "tiny").iterdir())
    assert files == ["digit.png", "edge.png", "result.json"]
    for name, images in generated.items():
        with Image.open(tmp_path / "page" / "tiny" / f"{name}.png") as strip:
            assert strip.tobytes() == torch.cat(list(images), dim=2).numpy().tobytes()


def test_the_distance_over_the_steps_is_shown(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    """A run whose snapshots were measured has its curve, its best step, and pictures of the best."""
    experiment = make_experiment(steps=100)
    run = leave(tmp_path / "runs", experiment, 100)
    with closing(MetricsLog(run.path, 0)) as log:
        for step, distance in ((20, 9.0), (60, 7.5), (100, 8.25)):
            parts = {"frechet_distance/digit": distance - 1, "frechet_distance/edge": distance + 1}
            log.write(step, {"frechet_distance": distance} | parts)
    for step in (20, 100):
        run.samples.mkdir(exist_ok=True)
        Image.new("L", (56, 28 * experiment.sample_count), step).save(run.samples / f"step_{step:08}.png")
    torch.manual_seed(5)
    best = build_generator(experiment)
    save_best(run, 60, best.state_dict(), "frechet_distance", 7.5)
    write_json(run.quality_file, {"steps": 60, **PAIRS})
    plain = leave(tmp_path / "runs", make_experiment(name="plain", steps=300), 300, PAIRS)
    page = tmp_path / "results.md"
    run_verb(report, run.path, plain.path, "--to", page)
    assert table(page, "Distance over the steps") == [
        {
            "experiment": "tiny",
            "pairs": "![](results/tiny/training.webp)",
            "distance": "![](results/tiny/distance.png)",
            "measure": "frechet_distance",
            "best": "7.50",
            "after step": "60",
            "last": "8.25",
            "best in the last fifth": "no",
        }
    ]
    assert table(page, "Generated images")[-1]["steps"] == "100; the best, 60"
    with Image.open(tmp_path / "results/tiny/training.webp") as film:
        assert (film.size, getattr(film, "n_frames", 1)) == ((4 * 56, 2 * 28), 2)
    with Image.open(tmp_path / "results/tiny/distance.png") as curve:
        assert curve.width > 100
    expected = generate(best, latents_of_seeds(experiment.latent_prior, range(8)))["edge"]
    with Image.open(tmp_path / "results/tiny/edge.png") as strip:
        assert strip.tobytes() == torch.cat(list(expected), dim=2).numpy().tobytes()
    write_json(run.quality_file, {"steps": 100, **PAIRS})
    run_verb(report, run.path, "--to", page)
    assert table(page, "Generated images")[-1]["steps"] == "100"


def test_training_details_are_reported(run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """A run beside its recipe: more steps, other fields, where and how large."""
    (tmp_path / "files").mkdir()
    experiment = make_experiment(steps=2000, seed=3, log_every=5, generator={"width": 1 / 64})
    source = experiment.domains[0].source
    (tmp_path / "files" / "tiny.toml").write_text(
        f"""name = "tiny"
data_license = "made for tests"
latent_dim = 8
batch_size = 4
steps = 1500
domains = [
    {{name = "digit", source = "{source}"}},
    {{name = "edge", source = "{source}", transform = "edge"}},
]
generator = {{table = "digit_leaky", width = 0.0078125}}
discriminator = {{table = "digit_strided", width = 0.015625}}
"""
    )
    run = leave(tmp_path / "runs", experiment, 2000, PAIRS)
    note_machine(run, {"device": "abacus", "threads": 2, "of_threads": 8, "processes": 3})
    page = tmp_path / "results.md"
    run_verb(report, run.path, "--to", page, "--recipes", tmp_path / "files")
    (made,), generated = table(page, "Training details"), table(page, "Generated images")
    generator = build_generator(experiment)
    assert {row["steps"] for row in [made, *generated]} == {"2,000"}
    assert made["batch"] == "4"
    assert made["generator"] == f"{sum(weight.numel() for weight in generator.parameters()):,}"
    assert made["machine"] == "abacus, 6 of 8 threads"
    assert made["overrides"] == "generator.width = 0.015625, steps = 2000"


def test_seeds_of_an_adaptation_are_one_row(run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """It is the mean over runs that differ in the seed; the labelled domain has no row."""
    runs = []
    for seed, weight, share in ((0, 1.0, 0.9), (1, 1.0, 0.94), (2, 2.0, 0.5)):
        experiment = make_experiment(
            ("known", "edge"), seed=seed, steps=7, lessons=[{"name": "labels", "weight": weight}]
        )
        known, edge = experiment.domains
        experiment = replace(experiment, domains=(known, replace(edge, held_out=0.2 if seed < 2 else None)))
        run, images = leave(tmp_path / "runs", experiment, 7), {"known": 10, "edge": 1860}
        accuracy = {"known": 0.99, "edge": share}
        write_json(run.accuracy_file, {"steps": 7, "images": images, "accuracy": accuracy})
        runs.append(run.path)
    run_verb(report, *runs, "--to", tmp_path / "results.md")
    first, other = table(tmp_path / "results.md", "Unsupervised domain adaptation")
    assert (first["domain"], first["seeds"], first["accuracy"]) == ("edge", "0, 1", "92.00% +- 2.83%")
    assert (first["held out"], first["images"]) == ("20% of edge", "1,860")
    assert (other["held out"], other["seeds"], other["accuracy"]) == ("", "2", "50.00%")
    assert len(table(tmp_path / "results.md", "Training details")) == 2
    assert "Generated images" not in (tmp_path / "results.md").read_text()


def test_a_page_keeps_what_was_measured_before(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    """The runs' folders may be gone: results stay beside the page, and a new one of an experiment replaces the old."""
    page, first = tmp_path / "results.md", leave(tmp_path / "a", make_experiment(name="one", steps=3), 3, PAIRS)
    run_verb(report, first.path, "--to", page)
    second = leave(tmp_path / "b", make_experiment(name="two", steps=5), 5, PAIRS)
    rmtree(tmp_path / "a")
    run_verb(report, second.path, "--to", page)
    assert {row["experiment"]: row["steps"] for row in table(page, "Generated images")} == {"one": "3", "two": "5"}
    again = leave(tmp_path / "c", make_experiment(name="one", steps=9), 9, PAIRS)
    run_verb(report, again.path, "--to", page)
    assert {row["experiment"]: row["steps"] for row in table(page, "Training details")} == {"one": "9", "two": "5"}


def test_runs_stopped_early_have_no_figure(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are named as left out, whether measured or not, and their recipes as not run."""
    whole = leave(tmp_path / "runs", make_experiment(name="whole", steps=3), 3, PAIRS)
    early = leave(tmp_path / "runs", make_experiment(name="fashion", steps=24_000), 2_400, PAIRS)
    run_verb(report, whole.path, early.path, "--to", tmp_path / "page.md")
    assert f"left out, as its recipe has more steps: {early.path}, 2,400 of 24,000 steps" in capsys.readouterr().out
    assert {row["experiment"] for row in table(tmp_path / "page.md", "Training details")} == {"whole"}
    assert "`fashion` (24,000)" in (tmp_path / "page.md").read_text().partition("## Not run")[2]
    assert not (tmp_path / "page" / "fashion").exists()


def test_a_damaged_result_is_named(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the file and how to make it anew; the page before stays."""
    run = leave(tmp_path / "runs", make_experiment(steps=3), 3, PAIRS)
    run_verb(report, run.path, "--to", tmp_path / "page.md")
    before = (tmp_path / "page.md").read_text()
    (tmp_path / "page" / "other").mkdir()
    (tmp_path / "page" / "other" / "result.json").write_text('{"generated": []}')
    with pytest.raises(SystemExit, match="2"):
        run_verb(report, run.path, "--to", tmp_path / "page.md")
    assert "other/result.json does not hold a result" in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text() == before


@pytest.mark.parametrize("message", ["is not measured: python -m training.evaluate", "are of one experiment, tiny"])
def test_what_has_no_place_on_the_page_is_refused(
    run_verb: RunVerb, make_experiment: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    """A run that is not measured, and two of one experiment, are errors before anything is written."""
    measured = leave(tmp_path / "runs", make_experiment(steps=3), 3, PAIRS)
    other = leave(tmp_path / "runs", make_experiment(seed=1, steps=3), 3, None if "not measured" in message else PAIRS)
    with pytest.raises(SystemExit, match="2"):
        run_verb(report, measured.path, other.path, "--to", tmp_path / "page.md")
    assert message in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
