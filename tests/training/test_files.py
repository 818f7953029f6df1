"""Files that appear whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.errors import RunError
from training.files import expecting, read_json, write_json, write_tensors, write_whole


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
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_whole(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("v1. is odd"), "v1. is odd; mend it"),
        (pickle.UnpicklingError("odd. Tell us"), "odd; mend it"),
        (EOFError(), "EOFError; mend it"),
    ],
)
def test_what_cannot_be_read_is_named(error: Exception, message: str) -> None:
    """The error has the file, what it should hold, the whole cause but for torch's advice, and a remedy."""
    with pytest.raises(RunError) as caught, expecting("a number", Path("a.txt"), "mend it"):
        raise error
    assert str(caught.value) == f"a.txt does not hold a number: {message}"


def test_a_disk_that_fails_says_nothing_of_a_file(tmp_path: Path) -> None:
    """Where a file cannot be reached no remedy is to remove it."""
    with pytest.raises(FileNotFoundError), expecting("a number", tmp_path, "remove it"):
        (tmp_path / "none").read_text()


def test_a_damaged_file_of_json_is_named(tmp_path: Path) -> None:
    """A file that a user or a full disk cut short is no traceback."""
    (tmp_path / "quality.json").write_text('{"steps": ')
    with pytest.raises(RunError, match=r"quality\.json does not hold JSON: Expecting value: line 1"):
        read_json(tmp_path / "quality.json", dict)


@pytest.mark.parametrize(
    "write",
    [lambda file: write_json(file, "x" * 9999), lambda file: write_tensors(file, torch.zeros(9999))],
    ids=["json", "tensors"],
)
def test_a_full_disk_is_called_so(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """The error has the file, the cause, whoever writes it, and the remedy; the file that was there stays."""
    file = tmp_path / "a.pt"
    file.write_text("old")
    (tmp_path / ".a.pt.part").symlink_to("/dev/full")
    with pytest.raises(RunError) as caught:
        write(file)
    message = f"{file} cannot be written: No space left on device; make room, and run the same command again"
    assert str(caught.value) == message
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_permission_is_called_so(as_a_user: Path) -> None:
    """It says which folder may not be written."""
    as_a_user.chmod(0o500)
    with pytest.raises(
        RunError, match=rf"a.txt cannot be written: Permission denied; allow it to write in {as_a_user}"
    ):
        write_json(as_a_user / "a.txt", 1)


def test_tensors_are_read_back(tmp_path: Path) -> None:
    """What is written by way of our handle is what torch writes."""
    write_tensors(tmp_path / "a.pt", {"a": torch.arange(1000.0), "b": [1, "two"]})
    read = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(read["a"], torch.arange(1000.0))
    assert read["b"] == [1, "two"]
