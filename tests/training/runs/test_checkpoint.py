"""States that a run goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.errors import RunError
from training.runs.folder import KEPT, list_checkpoints, load_checkpoint, save_checkpoint


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    """Older ones are removed, and the last one is loaded."""
    for step in (5, 100, 20_000):
        save_checkpoint(tmp_path, step, {"steps_done": step, "weights": torch.full((2,), float(step))})
    assert [file.name for file in list_checkpoints(tmp_path)] == ["step_00000100.pt", "step_00020000.pt"]
    assert len(list_checkpoints(tmp_path)) == KEPT
    state = load_checkpoint(tmp_path)
    assert state["steps_done"] == 20_000
    assert state["weights"].tolist() == [20_000.0, 20_000.0]


def test_a_file_that_a_kill_left_is_no_checkpoint(tmp_path: Path) -> None:
    """Half a checkpoint has another name, and a folder without whole ones says so."""
    (tmp_path / ".step_00000100.pt.part").write_bytes(b"half")
    with pytest.raises(RunError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_damaged_checkpoint_is_named_with_the_one_before(tmp_path: Path) -> None:
    """Nothing older is taken unasked; without the damaged file it is what a run goes on from."""
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"steps_done": step})
    older, last = list_checkpoints(tmp_path)
    for file, said in (
        (last, f"without it, {older.name} is the last"),
        (older, "there is no older one"),
    ):
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(RunError, match=rf"{file.name} does not hold a checkpoint: .+; {said}"):
            load_checkpoint(tmp_path)
        file.unlink()
