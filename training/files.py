"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `file`, flush it to the disk, and only then rename it into place."""
    aside = file.with_name(f".{file.name}.part")
    try:
        write(aside)
        with aside.open("rb+") as handle:
            os.fsync(handle.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write lines of text, as a whole file."""
    write_whole(file, lambda aside: aside.write_text("".join(f"{line}\n" for line in lines)))


def write_json(file: Path, value: object) -> None:
    """Write JSON for people, as a whole file."""
    write_lines(file, [json.dumps(value, indent=2)])
