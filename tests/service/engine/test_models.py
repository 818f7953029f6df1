"""A folder of models is served as far as it can be, and each is found by its name and kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.app import create_app
from service.engine.models import ModelRegistry, ModelRepository
from service.errors import NotReady, SettingsError, UnknownModel
from service.settings import Settings

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's right to read everything, if the tests have it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def open_folder(folder: Path, **settings: object) -> ModelRegistry:
    """Serve a folder of models on the CPU."""
    registry: ModelRegistry = create_app(
        Settings.model_validate({"models_dir": folder, "threads": 1, **settings})
    ).state.registry
    return registry


def served(registry: ModelRegistry) -> list[tuple[str, str]]:
    """List names and versions."""
    return [(model.name, model.version) for model in registry.models]


def reasons(registry: ModelRegistry) -> dict[str, str]:
    """Return why each path was refused."""
    return {error.path: error.reason for error in registry.errors}


def test_highest_version_is_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Version 10 is higher than 9, as numbers are."""
    for version in ("9", "10"):
        tiny_model(version=version)
    assert served(open_folder(models_dir)) == [("tiny", "10")]


def test_the_highest_version_that_loads_is_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """After a restart a broken version leaves the one below it, as it does when it arrives during service."""
    tiny_model(version="1")
    tiny_model(version="2")
    tiny_model(version="3").write_bytes(b"junk")
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "2")]
    assert list(reasons(registry)) == ["tiny/3/model.onnx"]


def test_the_served_file_is_not_loaded_again(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """The same version with the same digest is the same model; other bytes in its place are another."""
    path = tiny_model()
    repository = ModelRepository(models_dir, "cpu", 4)
    first = repository.load("tiny", None)[0]
    assert repository.load("tiny", first)[0] is first
    path.parent.rename(models_dir / "old")
    tiny_model(quality={"pixel_agreement": 1.0})
    second = repository.load("tiny", first)[0]
    assert first is not None
    assert second is not None
    assert second.digest != first.digest


def test_what_is_no_model_is_ignored(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Files, hidden folders, broken links and folders without a model file are not the repository's business."""
    tiny_model()
    (models_dir / "README.md").write_text("models")
    (models_dir / "samples").mkdir()
    (models_dir / "gone").symlink_to("nowhere")
    (models_dir / "tiny" / "2").mkdir()
    (models_dir / "tiny" / "config.pbtxt").write_text("")
    (models_dir / "tiny" / "1" / "sheet.png").write_text("")
    (models_dir / "samples" / ".half").mkdir()
    (models_dir / "samples" / ".half" / "model.onnx").write_text("half")
    (models_dir / ".half" / "1").mkdir(parents=True)
    (models_dir / ".half" / "1" / "model.onnx").write_text("half")
    (models_dir / "new" / ".1").mkdir(parents=True)
    (models_dir / "new" / ".1" / "model.onnx").write_text("half")
    registry = open_folder(models_dir)
    assert (served(registry), registry.errors) == ([("tiny", "1")], [])


def test_linked_folders_are_followed(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A model may be a link, as Kubernetes mounts files; a link to itself is reported and stops no other."""
    folder = tiny_model().parents[1]
    folder.rename(models_dir.with_name("elsewhere"))
    folder.symlink_to(models_dir.with_name("elsewhere"))
    (models_dir / "loop").symlink_to("loop")
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "1")]
    assert "symbolic links" in reasons(registry)["loop"]


def test_refused_models_do_not_affect_others(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Each refused file is listed with its path and the reason; the others are served by name."""
    tiny_model(name="zebra")
    tiny_model(name="ant")
    tiny_model(name="damaged").write_bytes(b"junk")
    tiny_model(name="here").parent.parent.rename(models_dir / "elsewhere")
    tiny_model(name="beta").parent.rename(models_dir / "beta" / "v1")
    registry = open_folder(models_dir)
    assert served(registry) == [("ant", "1"), ("zebra", "1")]
    assert "cannot read the file" in reasons(registry)["damaged/1/model.onnx"]
    assert "here/1, but its folder is elsewhere/1; rename it" in reasons(registry)["elsewhere/1/model.onnx"]
    assert "'v1'; allowed are whole numbers" in reasons(registry)["beta/v1/model.onnx"]


def test_a_number_that_is_no_version_is_reported(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A date, a word or a blank makes no version, and that is said beside a version; a link to one says nothing new."""
    wrong = ("20241231235959", "03", "0", "v4", "latest", "4 ")
    for version in wrong:
        tiny_model(version="2").parent.rename(models_dir / "tiny" / version)
    tiny_model(version="2")
    (models_dir / "tiny" / "newest").symlink_to("2")
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "2")]
    assert set(reasons(registry)) == {f"tiny/{version}/model.onnx" for version in wrong}
    assert "'03'; allowed are whole numbers from 1 to 999999999" in reasons(registry)["tiny/03/model.onnx"]


@pytest.mark.parametrize(
    "wrong",
    [
        *("model.onnx", "plain/model.onnx", "tiny/tiny.onnx", "tiny/9/Model.onnx", "tiny/9/tiny.onnx"),
        "nested/tiny/8/model.onnx",
    ],
)
def test_a_model_in_a_wrong_place_is_reported(tiny_model: Callable[..., Path], models_dir: Path, wrong: str) -> None:
    """A model that nobody would find is refused with where it belongs, beside the one that is served."""
    source = tiny_model()
    (models_dir / wrong).parent.mkdir(parents=True, exist_ok=True)
    (models_dir / wrong).write_bytes(source.read_bytes())
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "1")]
    assert list(reasons(registry)) == [wrong]
    assert "found at <name>/<version>/model.onnx alone" in reasons(registry)[wrong]


@pytest.mark.parametrize("link", ["tiny/9", "tiny/9/model.onnx"])
def test_a_version_that_is_a_link_to_nothing_is_reported(
    tiny_model: Callable[..., Path], models_dir: Path, link: str
) -> None:
    """It is refused like a version that cannot be read."""
    tiny_model()
    (models_dir / link).parent.mkdir(exist_ok=True)
    (models_dir / link).symlink_to("nowhere")
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "1")]
    assert "link to nothing" in reasons(registry)["tiny/9/model.onnx"]


def test_a_name_that_is_no_text_is_reported_as_text(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A folder whose name is no UTF-8 is refused in words that JSON can hold."""
    tiny_model(name="here").parents[1].rename(models_dir / os.fsdecode(b"\xff"))
    tiny_model()
    registry = open_folder(models_dir)
    assert served(registry) == [("tiny", "1")]
    assert "its folder is \\xff/1" in reasons(registry)["\\xff/1/model.onnx"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("served", [False, True])
def test_what_is_no_regular_file_is_never_opened(
    tiny_model: Callable[..., Path], models_dir: Path, served: bool
) -> None:
    """To open a FIFO would wait for its writer for ever; it is refused, also in place of the served version."""
    repository = ModelRepository(models_dir, "cpu", 4)
    before = tiny_model(version="2") if served else None
    model = repository.load("tiny", None)[0]
    if before is not None:
        before.unlink()
    (models_dir / "tiny" / "2").mkdir(parents=True, exist_ok=True)
    os.mkfifo(models_dir / "tiny" / "2" / "model.onnx")
    found, errors = repository.load("tiny", model)
    assert found is model
    assert [tuple(error) for error in errors] == [("tiny/2/model.onnx", "it is no regular file")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull")],
)
def test_a_file_that_never_arrived_is_called_so(
    tiny_model: Callable[..., Path], models_dir: Path, content: bytes, reason: str
) -> None:
    """An empty file and a pointer of Git LFS get the remedy, not the words of a parser."""
    tiny_model().write_bytes(content)
    assert reason in reasons(open_folder(models_dir))["tiny/1/model.onnx"]


@pytest.mark.parametrize("inside", ["tiny", "tiny/1"])
def test_a_model_in_place_of_its_folder_is_told(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    """One who names the model itself learns which folder to name, also beside a folder of another user."""
    tiny_model()
    (models_dir / inside / "lost+found").mkdir(mode=0o0)
    monkeypatch.chdir(models_dir / inside)
    with unprivileged():
        assert "name the folder around it" in (open_folder(Path()).unavailable_reason or "")


@pytest.mark.parametrize(
    ("closed", "path"), [("", "closed"), ("1", "closed/1/model.onnx"), ("1/model.onnx", "closed/1/model.onnx")]
)
def test_a_missing_permission_is_called_so(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch, closed: str, path: str
) -> None:
    """A folder or file of another user is listed as such; the others are served, and `lost+found` is not listed."""
    tiny_model(name="open")
    tiny_model(name="closed")
    (models_dir / "lost+found").mkdir(mode=0o0)
    (models_dir / "closed" / closed).chmod(0o0)
    monkeypatch.chdir(models_dir)
    with unprivileged():
        registry = open_folder(Path())
    assert served(registry) == [("open", "1")]
    assert set(reasons(registry)) == {path}
    assert reasons(registry)[path].startswith("Permission denied: user ")


def test_a_models_folder_without_permission_is_called_so(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for an empty one."""
    tiny_model()
    monkeypatch.chdir(models_dir.parent)
    models_dir.parent.chmod(0o755)
    models_dir.chmod(0o0)
    with unprivileged():
        reason = open_folder(Path(models_dir.name)).unavailable_reason
    models_dir.chmod(0o755)
    assert reason is not None
    assert "cannot be read: Permission denied" in reason


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "No such file"), ("models", "holds no")])
def test_a_folder_without_models_is_named(tmp_path: Path, models_dir: Path, name: str, reason: str) -> None:
    """The reason differs for a missing folder and an empty one."""
    assert models_dir.exists()
    assert reason in (open_folder(tmp_path / name).unavailable_reason or "")


def test_if_all_are_refused_the_reason_names_them(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """The reasons are where an operator looks first."""
    tiny_model().write_bytes(b"junk")
    reason = open_folder(models_dir).unavailable_reason or ""
    assert "tiny/1/model.onnx: onnxruntime cannot read" in reason


def test_models_of_all_kinds_are_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """All are listed; requests for images go to generators, of which the first by name is the default."""
    tiny_model(name="zebra")
    tiny_model(name="pair")
    tiny_model(name="ant", kind="classifier", goes_with=("pair",))
    tiny_model(name="bee", kind="encoder", goes_with=("pair", "zebra"))
    registry = open_folder(models_dir)
    kinds = {model.name: model.metadata.kind for model in registry.models}
    assert kinds == {"ant": "classifier", "bee": "encoder", "pair": "generator", "zebra": "generator"}
    assert registry.default == "pair"
    assert registry.generator(None).name == "pair"
    assert registry.model("ant").metadata.goes_with == ("pair",)
    with pytest.raises(UnknownModel, match="'ant' is a classifier; this needs a generator") as caught:
        registry.generator("ant")
    assert caught.value.errors[0].allowed == ["pair", "zebra"]


def test_without_a_generator_there_is_no_default(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Classifiers alone are served, and requests for images are told what is missing."""
    tiny_model(name="ant", kind="classifier")
    registry = open_folder(models_dir)
    assert (registry.default, registry.unavailable_reason) == (None, None)
    with pytest.raises(NotReady, match="no generator is served"):
        registry.generator(None)


def test_models_are_found_by_name_and_version(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """What is not served is named, with what is, and where the request named it."""
    tiny_model(version="2")
    registry = open_folder(models_dir)
    assert registry.model("tiny", "2") is registry.model(None) is registry.batcher("tiny").model
    with pytest.raises(UnknownModel, match="no model 'nobody'; there are tiny") as caught:
        registry.model("nobody", place="path")
    assert (caught.value.errors[0].pointer, caught.value.errors[0].place) == ("/name", "path")
    with pytest.raises(UnknownModel, match="served in version 2 only"):
        registry.model("tiny", "1")
    with pytest.raises(UnknownModel):
        registry.batcher("nobody")


@pytest.mark.parametrize("name", ["nobody", "ant"])
def test_the_default_model_is_a_generator(tiny_model: Callable[..., Path], models_dir: Path, name: str) -> None:
    """A default that is missing or of another kind stops the start, and the generators are named."""
    tiny_model()
    tiny_model(name="ant", kind="classifier")
    assert open_folder(models_dir, default_model="tiny").default == "tiny"
    with pytest.raises(SettingsError, match=f"COGAN_DEFAULT_MODEL = '{name}' is not served; generators are tiny"):
        open_folder(models_dir, default_model=name)


def test_no_model_is_served_while_shutting_down(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A service that is stopping is not ready, though it still answers what it accepted."""
    tiny_model()
    registry = open_folder(models_dir)
    registry.check_ready()
    registry.draining = True
    with pytest.raises(NotReady, match="shutting down"):
        registry.check_ready()
    assert registry.model(None).name == "tiny"
