"""Sheets of samples, and films of them."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ImageSequence import Iterator

from training.runs.figures import save_film, save_sheet, sheet


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
