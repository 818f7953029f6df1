"""Runs that are resumed learn from the images that they began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import train
from training.runs.folder import RunFolder, list_checkpoints

RunVerb = Callable[..., None]
SIZE = (28, 28)


def add(folder: Path, *levels: int) -> None:
    """Add images of one level each to the split to learn from, and two to measure against."""
    for split, shown in (("train", levels), ("test", (250, 251))):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for level in shown:
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
    said = "warning: this run does not go on bit for bit: precision 32-true, now bf16-mixed\n"
    assert said in capsys.readouterr().out
    run_verb(train, begun, "--dry-run")
    assert "warning" not in capsys.readouterr().out


def test_a_damaged_record_is_named(begun: Path, run_verb: RunVerb, capsys: pytest.CaptureFixture[str]) -> None:
    """And a run of an earlier version has none, and goes on."""
    (begun / "images.json").write_text("{")
    with pytest.raises(SystemExit, match="2"):
        run_verb(train, begun)
    assert "images.json does not hold JSON" in capsys.readouterr().err
    (begun / "images.json").unlink()
    run_verb(train, begun)
