"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import RunError
from training.files import expecting, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """A written file has all of the new content, and nothing lies beside it."""
    file = tmp_path / "a.txt"
    file.write_text("old and longer")
    write_whole(file, lambda aside: aside.write_text("new"))
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    """What fails half way leaves neither half a file nor rubbish."""
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail(aside: Path) -> None:
        aside.write_text("ne")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError("odd. Tell us"), "odd; mend it"), (EOFError(), "EOFError; mend it")]
)
def test_what_cannot_be_read_is_named(error: Exception, said: str) -> None:
    """The error has the file, what it should hold, what failed, in a sentence, and what can be done."""
    with pytest.raises(RunError) as caught, expecting("a number", Path("a.txt"), "mend it"):
        raise error
    assert str(caught.value) == f"a.txt does not hold a number: {said}"


def test_a_disk_that_fails_says_nothing_of_a_file(tmp_path: Path) -> None:
    """Where a file cannot be reached nobody is told to remove it."""
    with pytest.raises(FileNotFoundError), expecting("a number", tmp_path, "remove it"):
        (tmp_path / "none").read_text()
