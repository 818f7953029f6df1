"""Processes of one service come to serve the same, though one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.engine.model_repository import Opening, Refused
from service.errors import LoadRefused
from service.settings import Settings
from tests.service.processes.lines import join, part

pytestmark = pytest.mark.anyio


async def test_a_load_that_fails_in_one_process_is_done_again(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told of it, all serve the new version, and what was unloaded stays so."""
    tiny_model()
    tiny_model(name="other")
    first, other = (create_app(Settings(models_dir=models_dir, threads=1)).state for _ in range(2))
    ends = await join(first.siblings, other.siblings)
    await first.changes.unload("other")
    tiny_model(version="2")
    open_file, failures = other.changes._loader.repository.open, iter([True])

    def fail_once(name: str, served: Any) -> Opening:
        if next(failures, False):
            return Opening(served, (Refused(name, "no memory"),), 0.0)
        opening: Opening = open_file(name, served)
        return opening

    monkeypatch.setattr(other.changes._loader.repository, "open", fail_once)
    with pytest.raises(LoadRefused, match="no memory; version 1 is served"):
        await first.changes.load("tiny")
    for state in (first, other):
        assert [(model.name, model.version) for model in state.registry.models] == [("tiny", "2")]
    await part(ends)
