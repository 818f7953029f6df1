"""Reports as files."""

from __future__ import annotations

import csv
from pathlib import Path

from training.runs.tables import Value, flat, markdown, save_report

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
