"""A run that goes on: with what it began with, or in one line why it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from training import evaluate as evaluation
from training import sample, train, train_encoder
from training.config.experiment import Experiment
from training.data.dataset import ImageSet, Origin
from training.files import write_json
from training.runs.folder import RunFolder, list_checkpoints
from training.runs.images import check_images, write_images

RunVerb = Callable[..., None]
MakeExperiment = Callable[..., Experiment]
SIZE = (28, 28)


def add(folder: Path, *levels: int) -> None:
    """Add images of one level each to the split to learn from, and two to measure against."""
    for split, values in (("train", levels), ("test", (250, 251))):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for level in values:
            Image.fromarray(np.full(SIZE, level, np.uint8)).save(folder / split / f"{level:03d}.png")


@pytest.fixture
def begun(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> Path:
    """Return a run of three domains on the photographs of one folder, as after its first step."""
    add(tmp_path / "photos", *range(0, 200, 10))
    text = write_experiment.read_text().replace("someone/digits", str(tmp_path / "photos"))
    write_experiment.write_text(text)
    run_verb(train, write_experiment, "--runs", tmp_path / "runs", "--checkpoint-every", 1, "--steps", 3)
    run = RunFolder.open(tmp_path / "runs" / "00000_tiny")
    list_checkpoints(run.checkpoints)[-1].unlink()
    return run.path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 7}, "step_00000002.pt does not hold the networks of its run's experiment.json: "),
        ({"checkpoint_every": 2}, ""),
        ({"lost": True}, "has metrics of 3 steps and no checkpoint: restore its folder checkpoints"),
    ],
)
def test_a_run_that_lost_something_goes_on_or_says_what(
    run_verb: RunVerb, begun: Path, capsys: pytest.CaptureFixture[str], change: dict[str, int], message: str
) -> None:
    """In one line; a run that is whole ends with its pictures, even if its metrics are gone."""
    description = RunFolder.open(begun).description()
    write_json(begun / "experiment.json", description | {"experiment": description["experiment"] | change})
    if "lost" in change:
        write_json(begun / "experiment.json", description)
        shutil.rmtree(begun / "checkpoints")
    if not message:
        run_verb(train, begun)
        (begun / "metrics.jsonl").unlink()
        run_verb(train, begun)
        assert "which has no step left to train" in capsys.readouterr().out
        return
    for verb in (train, sample) if "lost" not in change else (train,):
        with pytest.raises(SystemExit, match="2"):
            run_verb(verb, begun)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_run_of_other_images_is_refused(
    run_verb: RunVerb, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New images would share all of them out anew, so that what was one domain's became another one's."""
    add(tmp_path / "photos", 201, 202, 203)
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, begun)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("cannot go on: its images have changed", "are new: ", "were another domain's: ", "train/2"):
        assert part in error
    assert "restore them, or begin a new run" in error


@pytest.mark.parametrize(("verb", "wanted"), [(evaluation, "be measured"), (train_encoder, "have an encoder")])
def test_a_run_is_not_compared_with_what_it_learned_from(
    run_verb: RunVerb,
    write_experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: ModuleType,
    wanted: str,
) -> None:
    """New images would have others held out, among them some that were learned from."""
    add(tmp_path / "photos", *range(0, 200, 10))
    write_experiment.write_text(write_experiment.read_text().replace("someone/digits", str(tmp_path / "photos")))
    held_out = [f"--domains.{number}.held-out=0.2" for number in range(3)]
    run_verb(train, write_experiment, "--runs", tmp_path, "--steps", 1, *held_out)
    add(tmp_path / "photos", 201, 202, 203)
    with pytest.raises(SystemExit, match="2"):
        run_verb(verb, tmp_path / "00000_tiny")
    assert f"cannot {wanted}: its images have changed" in capsys.readouterr().err


def test_images_that_are_gone_are_named(begun: Path, tmp_path: Path, run_verb: RunVerb) -> None:
    """An image that was removed or edited is no longer what was learned from."""
    (tmp_path / "photos" / "train" / "050.png").unlink()
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, begun)
    add(tmp_path / "photos", 50)
    run_verb(train, begun)


def test_the_same_images_elsewhere_are_the_same(
    begun: Path, tmp_path: Path, run_verb: RunVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images are known by their bytes, so that a copy of the folder serves, and nothing is said."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "photos").rename(tmp_path / "copy" / "photos")
    (tmp_path / "photos").symlink_to(tmp_path / "copy" / "photos")
    capsys.readouterr()
    run_verb(train, begun)
    assert "warning" not in capsys.readouterr().out


def test_a_run_says_where_it_cannot_go_on_bit_for_bit(
    begun: Path, run_verb: RunVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another precision or number of threads rounds otherwise; what is not said is what the run had."""
    capsys.readouterr()
    run_verb(train, begun, "--dry-run", "--machine.precision", "bf16-mixed")
    message = "warning: this run does not go on bit for bit: precision 32-true, now bf16-mixed\n"
    assert message in capsys.readouterr().out
    run_verb(train, begun, "--dry-run")
    assert "warning" not in capsys.readouterr().out


def test_other_pixels_of_the_same_images_are_refused(
    begun: Path, run_verb: RunVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    """A domain whose transform was changed in the run would go on with other pictures under its name."""
    text = (begun / "experiment.json").read_text()
    (begun / "experiment.json").write_text(text.replace('"identity"', '"negative"'))
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, begun)
    assert "domain digit began with another transform" in capsys.readouterr().err
    (begun / "experiment.json").write_text(text)
    run_verb(train, begun)


def test_other_labels_of_a_resumed_run_are_told(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """An image that was moved to another class has the same bytes, and another lesson."""
    origins = (Origin("a.png", "00"), Origin("b.png", "01"))
    images = ImageSet(torch.zeros(2, 1, *SIZE, dtype=torch.uint8), torch.tensor([0, 1]), (), origins)
    run = RunFolder.create(tmp_path, make_experiment(("day",)))
    write_images(run, {"day": images})
    assert check_images(run, {"day": images}) == ""
    moved = replace(images, labels=torch.tensor([1, 0]))
    assert "those of day have other labels than before" in check_images(run, {"day": moved})


@pytest.mark.parametrize("record", ["{", "3", '{"digit": {"images": []}}', '{"digit": 3}', "{}"])
def test_a_damaged_record_is_named(
    begun: Path, run_verb: RunVerb, capsys: pytest.CaptureFixture[str], record: str
) -> None:
    """Whatever stands in it, in one line; a run of an earlier version has none, and goes on."""
    (begun / "images.json").write_text(record)
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, begun)
    assert "images.json does not hold the images of a run: " in capsys.readouterr().err
    (begun / "images.json").unlink()
    run_verb(train, begun)


@pytest.mark.parametrize("kept", [("images", "pixels"), ("images", "pixels", "labels")])
def test_a_record_of_an_earlier_version_is_read(begun: Path, run_verb: RunVerb, kept: tuple[str, ...]) -> None:
    """What it has not kept is not compared."""
    record = json.loads((begun / "images.json").read_text())
    old = {name: {field: domain[field] for field in kept} for name, domain in record.items()}
    (begun / "images.json").write_text(json.dumps(old))
    run_verb(train, begun)
