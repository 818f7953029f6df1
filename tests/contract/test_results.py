"""The committed page of results is what the committed results say, and shows pictures that are there."""

from __future__ import annotations

import re
from pathlib import Path

from training.report import recipe_steps
from training.runs.page import page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/results.md"


def test_the_page_is_what_the_results_say() -> None:
    """docs/results.md is what `training.report` writes from docs/results, to the letter."""
    assert PAGE.read_text() == page(ROOT / "docs/results", recipe_steps(ROOT / "training/recipes"))


def test_every_picture_of_the_page_is_there() -> None:
    """Samples, films and curves are committed, and no picture that the page does not show."""
    shown = {PAGE.parent / path for path in re.findall(r"!\[\]\((.*?)\)", PAGE.read_text())}
    there = {file for file in (ROOT / "docs/results").rglob("*") if file.suffix in (".png", ".webp")}
    assert shown == there
