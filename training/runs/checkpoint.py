"""Checkpoints: states that a run goes on from, the last ones of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.errors import RunError
from training.files import expecting, write_tensors

KEPT = 2  # the last, and the one before it


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` as a whole file, and remove all but the last KEPT."""
    file = folder / f"step_{step:08d}.pt"
    write_tensors(file, state)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return file


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the last one last."""
    return sorted(folder.glob("step_*.pt"))


def last_step(folder: Path) -> int:
    """Return the step of the last checkpoint in a folder; 0 where there is none."""
    return max((int(file.stem.removeprefix("step_")) for file in list_checkpoints(folder)), default=0)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the last checkpoint in a folder onto the CPU.

    Raises RunError where there is none, and where it is damaged: whether an older one will do is for the user
    to say.
    """
    files = list_checkpoints(folder)
    if not files:
        raise RunError(f"{folder} holds no checkpoint")
    *older, last = files
    remedy = f"without it, {older[-1].name} is the last" if older else "there is no older one"
    with expecting("a checkpoint", last, remedy):
        state: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True)
    return state
