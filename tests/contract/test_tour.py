"""The notebook of the docs runs from its first cell to its last, and shows what it showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.running import services

ROOT = Path(__file__).parents[2]


def outputs(notebook: Any) -> list[Any]:
    """Return what each cell of code printed, or the kinds of what it showed."""
    cells = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]
    return [[one.get("text") or sorted(one["data"]) for one in shown] for shown in cells]


def test_the_tour_shows_what_it_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the committed models no cell fails, texts are those of the file, and pictures stand where they stood."""
    committed = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    again = nbformat.from_dict(committed)
    with services(ROOT / "models") as start:
        for name, value in {"COGAN_URL": start().url, "PYTHONPATH": ROOT, "IPYTHONDIR": tmp_path}.items():
            monkeypatch.setenv(name, str(value))
        NotebookClient(again, timeout=60, coalesce_streams=True, resources={"metadata": {"path": tmp_path}}).execute()
    assert outputs(again) == outputs(committed)
    assert all(outputs(committed))
