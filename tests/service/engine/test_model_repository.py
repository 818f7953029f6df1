"""A folder of models is served as far as it can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.app import create_app
from service.engine.model_registry import ModelRegistry
from service.engine.model_repository import ModelRepository
from service.settings import Settings


def open_folder(folder: Path) -> ModelRegistry:
    """Open a folder of models on the CPU."""
    registry: ModelRegistry = create_app(Settings(models_dir=folder)).state.registry
    return registry


def served(registry: ModelRegistry) -> list[tuple[str, str]]:
    """List names and versions."""
    return [(model.name, model.version) for model in registry.models]


def test_highest_version_is_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Version 10 is higher than 9, as numbers are."""
    for version in ("9", "10"):
        tiny_model(version=version)
    assert served(open_folder(models_dir)) == [("tiny", "10")]


def test_the_highest_version_that_opens_is_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """After a restart a broken version leaves the one below it, as it does where it comes while serving."""
    tiny_model(version="1")
    tiny_model(version="2")
    tiny_model(version="3").write_bytes(b"junk")
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "2")]
    assert [one.path for one in registry.refused] == ["tiny/3/model.onnx"]


def test_the_file_that_is_served_is_not_opened_again(
    tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """The same version with the same digest is the same model; other bytes in its place are another."""
    path = tiny_model()
    repository = ModelRepository(models_dir, "cpu", 4)
    first = repository.open("tiny", None).model
    assert repository.open("tiny", first).model is first
    path.parent.rename(models_dir / "old")
    tiny_model(quality={"pixel_agreement": 1.0})
    second = repository.open("tiny", first).model
    assert first is not None
    assert second is not None
    assert second.digest != first.digest


def test_what_is_no_model_is_passed_over(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Files, hidden folders and folders without a model file are none of the repository's business."""
    tiny_model()
    (models_dir / "README.md").write_text("models")
    (models_dir / "samples").mkdir()
    (models_dir / "tiny" / "2").mkdir()
    (models_dir / ".half" / "1").mkdir(parents=True)
    (models_dir / ".half" / "1" / "model.onnx").write_text("half")
    (models_dir / "new" / ".1").mkdir(parents=True)
    (models_dir / "new" / ".1" / "model.onnx").write_text("half")
    registry = open_folder(models_dir)
    assert (served(registry), registry.refused) == ([("tiny", "1")], [])


def test_refused_models_do_not_hinder_others(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Each refused file is listed with its path and the reason; the others are served by name."""
    tiny_model(name="zebra")
    tiny_model(name="ant")
    tiny_model(name="damaged").write_bytes(b"junk")
    tiny_model(name="coder", kind="encoder")
    tiny_model(name="here").parent.parent.rename(models_dir / "elsewhere")
    tiny_model(name="beta").parent.rename(models_dir / "beta" / "v1")
    registry = open_folder(models_dir)
    assert served(registry) == [("ant", "1"), ("zebra", "1")]
    reasons = {one.path: one.reason for one in registry.refused}
    assert "cannot read the file" in reasons["damaged/1/model.onnx"]
    assert "kind is 'encoder'" in reasons["coder/1/model.onnx"]
    assert "here/1, but its folder is elsewhere/1" in reasons["elsewhere/1/model.onnx"]
    assert "'v1'; allowed are whole numbers" in reasons["beta/v1/model.onnx"]


@pytest.mark.parametrize(("name", "trouble"), [("nowhere", "No such file"), ("models", "holds no")])
def test_a_folder_without_models_says_so(tmp_path: Path, models_dir: Path, name: str, trouble: str) -> None:
    """A missing folder and an empty one are told apart."""
    assert models_dir.exists()
    assert trouble in (open_folder(tmp_path / name).trouble or "")


def test_when_all_are_refused_the_trouble_names_them(
    tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """The reasons are where an operator looks first."""
    tiny_model().write_bytes(b"junk")
    assert "tiny/1/model.onnx: onnxruntime cannot read" in (open_folder(models_dir).trouble or "")
