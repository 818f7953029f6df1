"""Files that appear whole or not at all, and are named where they cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import RunError


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


@contextmanager
def expecting(what: str, file: Path, remedy: str = "") -> Iterator[None]:
    """Raise RunError where what is read within is not in the file: it is damaged, or of something else.

    The error names the file, what was expected of it and what can be done, where anything can. Errors of
    the disk stay what they are.
    """
    try:
        yield
    except (OSError, MemoryError):  # say nothing of what the file holds
        raise
    except Exception as error:  # a damaged file can make a reader fail in any way
        said = str(error).partition(". ")[0] or type(error).__name__  # torch goes on with advice
        raise RunError("; ".join(filter(None, [f"{file} does not hold {what}: {said}", remedy]))) from error
