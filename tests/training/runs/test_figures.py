"""Curves in panels, sheets, films and tables, as files."""

from __future__ import annotations

import csv
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from PIL.ImageSequence import Iterator

from training.runs.figures import (
    EXCERPT_FRAMES,
    SIDE,
    Value,
    by_metric,
    flat,
    markdown,
    save_curves,
    save_excerpt,
    save_film,
    save_report,
    save_sheet,
    sheet,
)

CURVE = ([1.0, 2.0], [0.5, 0.25])


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
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
    domains = {"one": {"loss/digit": CURVE, "loss": CURVE, "loss/edge": CURVE}}
    assert by_metric(domains) == {"loss": {"one digit": CURVE, "one": CURVE, "one edge": CURVE}}


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 3, 2)])
def test_a_panel_more_makes_the_figure_larger(tmp_path: Path, count: int, columns: int, rows: int) -> None:
    """Panels stand in rows of three at most, and none is squeezed."""
    save_curves({str(number): {"run": CURVE} for number in range(count)}, "step", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (round(columns * SIDE[0] * 100), round(rows * SIDE[1] * 100))


@pytest.mark.parametrize("places", [[0, 4], ["ce", "hinge"]])
def test_few_places_are_named(generated: list[Figure], tmp_path: Path, places: list[Any]) -> None:
    """Numbers of layers stand below the axis as they are, and so do words."""
    save_curves({"quality": {"run": (places, [0.5, 0.75])}}, "layers", tmp_path / "curves.png")
    (axes,) = generated[0].axes
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert named == list(map(str, places))


def test_a_label_has_one_colour_in_all_panels(generated: list[Figure], tmp_path: Path) -> None:
    """A curve is known by its colour, also where those before it are missing; the legend has each once."""
    save_curves({"loss": {"one": CURVE, "two": CURVE}, "r1": {"two": CURVE}}, "step", tmp_path / "c.png")
    first, second = generated[0].axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert [text.get_text() for text in generated[0].legends[0].get_texts()] == ["one", "two"]
    np.testing.assert_array_equal(second.lines[0].get_data(), CURVE)


def test_rows_are_latents_and_columns_are_domains(tmp_path: Path) -> None:
    """Three pairs of two domains make a sheet of three rows and two columns."""
    pairs = {
        name: torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 5)
        for name, levels in {"digit": [10, 20, 30], "edge": [110, 120, 130]}.items()
    }
    save_sheet(pairs, tmp_path / "sheet.png", scale=2)
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (3 * 4 * 2, 2 * 5 * 2)
    assert pixels[::8, ::10].tolist() == [[10, 110], [20, 120], [30, 130]]


def test_grey_and_colour_share_a_sheet() -> None:
    """Where one domain is RGB the sheet is, and grey stays grey."""
    grey = torch.full((1, 1, 2, 2), 50, dtype=torch.uint8)
    colour = torch.tensor([1, 2, 3], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    pixels = np.asarray(sheet({"digit": grey, "colour": colour}))
    assert pixels[0, [0, 2]].tolist() == [[50, 50, 50], [1, 2, 3]]


def test_the_last_row_is_filled_up() -> None:
    """Five pairs in two columns of pairs make three rows, the last place black."""
    images = torch.full((5, 1, 2, 2), 9, dtype=torch.uint8)
    pixels = np.asarray(sheet({"digit": images}, columns=2))
    assert pixels[::2, ::2].tolist() == [[9, 9], [9, 9], [9, 0]]


def test_a_film_may_have_more_sheets_than_files_may_be_open(tmp_path: Path) -> None:
    """Each is opened once it is its turn."""
    save_sheet({"digit": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, tmp_path / "sheet.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, hard))
    try:
        save_film([tmp_path / "sheet.png"] * 100, tmp_path / "film.gif")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (tmp_path / "film.gif").is_file()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_shows_the_sheets_in_turn(tmp_path: Path, channels: int) -> None:
    """Each frame is a sheet, in grey and in colour, and the last one stays longest."""
    levels = (10, 200, 90)
    files = [tmp_path / f"{level}.png" for level in levels]
    for level, file in zip(levels, files, strict=True):
        save_sheet({"digit": torch.full((2, channels, 4, 5), level, dtype=torch.uint8)}, file)
    save_film(files, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        frames = [(frame.convert("L").getpixel((3, 3)), frame.info["duration"]) for frame in Iterator(film)]
    assert [level for level, _ in frames] == list(levels)
    assert frames[-1][1] > frames[0][1] == frames[1][1]


def test_an_excerpt_has_the_first_and_the_last_sheet(tmp_path: Path) -> None:
    """Of many sheets some are shown, evenly spaced; their first pairs lie in a grid, in rows."""
    files = [tmp_path / f"{number:03}.png" for number in range(100)]
    for number, file in enumerate(files):
        image = Image.new("L", (4, 6 * 10), 2 * number)
        image.paste(255, (0, 6, 4, 12))  # the second pair
        image.save(file)
    save_excerpt(files, 10, tmp_path / "film.webp")
    with Image.open(tmp_path / "film.webp") as film:
        assert (film.size, getattr(film, "n_frames", 1)) == ((16, 12), EXCERPT_FRAMES)
        frames = [np.asarray(frame.convert("L")).astype(int) for frame in Iterator(film)]
    assert np.abs(frames[0][2, [1, 6, 9]] - [0, 255, 0]).max() < 20
    assert abs(frames[-1][8, 1] - 198) < 20


ROWS: list[dict[str, Value]] = [{"run": "a", "loss": 1 / 3, "steps": 2000}, {"run": "b|c", "loss": None, "r1": 2.0}]


def test_leaves_are_named_by_the_way_to_them() -> None:
    """Nested mappings and lists become one row, whatever lies in them."""
    nested = {"generator": {"width": 0.5}, "domains": [{"name": "digit"}, {"name": "edge"}], "none": None}
    assert flat(nested | {"empty": []}, "run") == {
        "run.generator.width": 0.5,
        "run.domains.0.name": "digit",
        "run.domains.1.name": "edge",
        "run.none": None,
    }


def test_markdown_is_for_people() -> None:
    """Every name is a column, numbers are rounded, what is missing is empty, and no bar breaks a line."""
    assert markdown(ROWS).splitlines() == [
        "| run | loss | steps | r1 |",
        "| --- | --- | --- | --- |",
        "| a | 0.33333 | 2000 |  |",
        "| b\\|c |  |  | 2 |",
    ]


def test_csv_is_for_programs(tmp_path: Path) -> None:
    """It keeps every digit, and both files stand in the folder alone."""
    save_report(ROWS, tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"run": "a", "loss": repr(1 / 3), "steps": "2000", "r1": ""}
    assert second == {"run": "b|c", "loss": "", "steps": "", "r1": "2.0"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.csv", "report.md"]
