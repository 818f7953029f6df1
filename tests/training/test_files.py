"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.files import write_whole


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
