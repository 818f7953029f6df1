"""Curves in panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.runs.figures import SIDE, by_metric, save_curves

CURVE = ([1.0, 2.0], [0.5, 0.25])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of the figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_runs_become_panels_of_metrics() -> None:
    """Every metric that any run has is a panel, with a curve for each run that has it."""
    runs = {"one": {"loss": CURVE, "r1": CURVE}, "two": {"loss": CURVE}}
    assert by_metric(runs) == {"loss": {"one": CURVE, "two": CURVE}, "r1": {"one": CURVE}}


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 3, 2)])
def test_a_panel_more_makes_the_figure_larger(tmp_path: Path, count: int, columns: int, rows: int) -> None:
    """Panels stand in rows of three at most, and none is squeezed."""
    save_curves({str(number): {"run": CURVE} for number in range(count)}, "step", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (round(columns * SIDE[0] * 100), round(rows * SIDE[1] * 100))


@pytest.mark.parametrize("places", [[0, 4], ["ce", "hinge"]])
def test_few_places_are_named(drawn: list[Figure], tmp_path: Path, places: list[Any]) -> None:
    """Numbers of layers stand below the axis as they are, and so do words."""
    save_curves({"quality": {"run": (places, [0.5, 0.75])}}, "layers", tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == list(map(str, places))


def test_a_label_has_one_colour_in_all_panels(drawn: list[Figure], tmp_path: Path) -> None:
    """A curve is known by its colour, also where those before it are missing; the legend has each once."""
    save_curves({"loss": {"one": CURVE, "two": CURVE}, "r1": {"two": CURVE}}, "step", tmp_path / "c.png")
    first, second = drawn[0].axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["one", "two"]
    np.testing.assert_array_equal(second.lines[0].get_data(), CURVE)
