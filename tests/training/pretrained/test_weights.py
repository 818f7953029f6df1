"""Weights by name: of a file, of a folder below the data root, of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from training.errors import RunError
from training.pretrained.features import find_weights, read_weights

NAME = "someone/network.v1"
COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache: empty, of a machine that does not reach the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("COGAN_DATA", raising=False)
    return tmp_path / "cache"


def keep(folder: Path, value: float) -> Path:
    """Write weights into a folder as a repository of the hub has them."""
    folder.mkdir(parents=True)
    save_file({"weight": torch.tensor([value])}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_name_of_the_hub_is_what_the_hub_has(hub: Path) -> None:
    """A repository that was fetched once is read from the cache of the library."""
    repository = hub / "models--someone--network.v1"
    file = keep(repository / "snapshots" / COMMIT, 2.0)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert find_weights(NAME) == file
    assert read_weights(file) == {"weight": torch.tensor([2.0])}


def test_a_folder_below_the_data_root_comes_first(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the last part of the hub's, as with images; nothing is asked of the hub."""
    file = keep(tmp_path / "data" / "network.v1", 1.0)
    monkeypatch.setenv("COGAN_DATA", str(tmp_path / "data"))
    assert find_weights(NAME) == file.resolve()
    assert not hub.exists()
    file.unlink()
    with pytest.raises(RunError, match=r"network\.v1/model\.safetensors is missing"):
        find_weights(NAME)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", [NAME, "no such: name", "some/weights.bin"])
def test_what_nobody_has_is_told(name: str) -> None:
    """A repository that cannot be fetched, and what is no name of one, say what a file would be."""
    with pytest.raises(RunError, match=r"no file \(of \.pt, \.pth, \.safetensors\), and from the hub"):
        find_weights(name)


def test_a_file_is_known_by_how_it_ends(tmp_path: Path) -> None:
    """Where one of weights is missing the hub is not asked, and one of something else is told."""
    with pytest.raises(RunError, match=r"none\.pth is missing"):
        find_weights("some/none.pth")
    for name in ("text.pth", "text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(RunError, match=rf"{name} does not hold weights"):
            read_weights(find_weights(str(tmp_path / name)))
