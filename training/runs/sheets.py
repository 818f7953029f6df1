"""Sheets of samples, rows latents and columns domains, and films of sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from training.files import write_whole
from training.pixels.ranges import Images

FRAME, LAST_FRAME = 200, 2000  # ms of a sheet in a film


def sheet(pairs: Images, columns: int = 1) -> Image.Image:
    """Lay pairs out as rows of a sheet, one domain beside the other, in so many columns of pairs.

    The last row is filled up with black.
    """
    wide = max(images.shape[1] for images in pairs.values())
    strips = torch.cat([images.expand(-1, wide, -1, -1) for images in pairs.values()], dim=3)
    strips = torch.cat([strips, strips.new_zeros(-len(strips) % columns, *strips.shape[1:])])
    rows = [torch.cat(list(row), dim=2) for row in strips.split(columns)]
    pixels = torch.cat(rows, dim=1).movedim(0, -1).squeeze(-1)
    return Image.fromarray(pixels.numpy())


def save_sheet(pairs: Images, file: Path, columns: int = 1, scale: int = 1) -> None:
    """Write a sheet as a PNG, its pixels enlarged `scale` times."""
    image = sheet(pairs, columns)
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    write_whole(file, lambda aside: enlarged.save(aside, format="PNG"))


def save_film(sheets: Sequence[Path], file: Path) -> None:
    """Write a GIF that shows the sheets one after the other, and the last one longer."""
    durations = [FRAME] * (len(sheets) - 1) + [LAST_FRAME]
    with Image.open(sheets[0]) as first:
        others = map(Image.open, sheets[1:])  # each once it is its turn: there may be thousands
        write_whole(
            file,
            lambda aside: first.save(
                aside, format="GIF", save_all=True, append_images=others, duration=durations, loop=0
            ),
        )
