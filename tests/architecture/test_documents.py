"""What the documents promise: commands run, settings are as described."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import __version__
from service.settings import Settings
from tests.running import services

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUICK = {  # options that the tests add to the README's commands
    "training.train": "--steps 2 --batch-size 4 --generator.width 0.02 --discriminator.width 0.1 "
    "--machine.accelerator cpu --machine.threads 1",
    "training.evaluate": "--pairs 100",
}


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _commands(program: str) -> list[str]:
    lines = "".join(_blocks("sh")).splitlines()
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Serve the committed models by `python -m service` on a free port of this machine."""
    with services(ROOT / "models") as start:
        service = start()
        yield f"localhost:{service.port}"
        service.process.terminate()
        assert service.process.wait(30) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", _commands("curl"))
def test_every_curl_of_the_readme_is_answered(command: str, served: str, tmp_path: Path) -> None:
    """Each request of the README succeeds on the committed models, word for word but for the port."""
    words = shlex.split(command.replace("localhost:8000", served))
    answer = subprocess.run(
        [*words, "--fail-with-body", "--silent", "--show-error"], cwd=tmp_path, capture_output=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout or any(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_translation_page_runs(served: str, tmp_path: Path) -> None:
    """Each request and the program of docs/translate.md succeed on the committed models, but for the port."""
    text = (ROOT / "docs/translate.md").read_text()
    commands = re.findall(r"^curl .*$", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        words = [*shlex.split(command.replace("localhost:8000", served)), "--fail-with-body", "--silent"]
        answer = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
        assert answer.returncode == 0, answer.stdout
    with Image.open(tmp_path / "pair.png") as pair:
        assert pair.size == (56, 28)
    (program,) = _blocks("python", text)
    words = [sys.executable, "-W", "ignore::ResourceWarning", "-c", program.replace("localhost:8000", served)]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.split()[0] in ("typical", "unusual")


@pytest.mark.parametrize("document", ["README.md", "docs/client.md"])
def test_python_of_the_documents_runs(document: str, served: str, tmp_path: Path) -> None:
    """Each example runs on the committed models, word for word but for the port."""
    examples = _blocks("python", (ROOT / document).read_text())
    assert examples
    for example in examples:
        program = example.replace("localhost:8000", served)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, env=environment, check=True)


@pytest.mark.timeout(300)  # three processes that load PyTorch
def test_the_readme_trains_on_two_folders_of_images(tmp_path: Path) -> None:
    """The README's experiment and its three commands turn two folders of pictures into a model."""
    random = np.random.default_rng(0)
    for domain in ("day", "night"):
        for split in ("train", "test"):
            folder = tmp_path / "pictures" / domain / split
            folder.mkdir(parents=True)
            for number in range(8):
                Image.fromarray(random.integers(0, 255, (30, 40, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "pictures.toml").write_text(_blocks("toml")[0])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [command for command in _commands("python") if "pictures" in command]
    assert [command.split()[2] for command in commands] == [
        f"training.{verb}" for verb in ("train", "evaluate", "export")
    ]
    for command in commands:
        words = shlex.split(f"{command} {QUICK.get(command.split()[2], '')}")
        subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "models/pictures/1/model.onnx").is_file()


def test_the_documents_name_files_that_exist() -> None:
    """Every link of the documents to a file of the project leads somewhere."""
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize(("models", "from_afar"), [("s3://bucket/models", True), ("other/models", False)])
def test_make_serves_other_models(models: str, from_afar: bool) -> None:
    """A folder needs nothing more, a URL the extra that reads it."""
    command = ["make", "--dry-run", "serve", f"MODELS={models}", "PORT=9000"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1].startswith(f"PORT=9000 COGAN_MODELS_DIR={models} ")
    assert any(line.endswith("-e '.[cpu,remote]'") for line in lines) == from_afar


def test_the_service_tells_the_version_of_the_package() -> None:
    """What /v2 and the OpenAPI document say is what pyproject.toml says."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_the_settings_are_described_as_they_are() -> None:
    """docs/settings.md has exactly the settings of the service, with their sentences and defaults."""
    text = (ROOT / "docs/settings.md").read_text()
    rows = [_row(name) for name in Settings.model_fields]
    assert [line for line in text.splitlines() if line.startswith("| `")] == rows, "\n".join(rows)


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    default = "by machine" if field.default_factory else field.default
    return f"| `COGAN_{name.upper()}` | {default} | {field.description} |"
