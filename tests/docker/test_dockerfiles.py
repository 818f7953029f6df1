"""The images hold what they are for, run unprivileged, and name settings that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from service.settings import Settings

IMAGES = ("Dockerfile", "docker/training/Dockerfile")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Read a Dockerfile as (instruction, arguments), with continued lines joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.strip().partition(" ") for line in lines) if name]


def arguments(path: Path, name: str) -> list[str]:
    """Return the arguments of every instruction of that name, in order."""
    return [rest for instruction, rest in instructions(path) if instruction == name]


def is_let_in(source: str, ignore_file: Path) -> bool:
    """Say whether the last pattern that fits a path, or a folder above it, lets it into the build."""
    allowed = True
    for line in ignore_file.read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        above = [source, *map(str, Path(source).parents)]
        if pattern and not pattern.startswith("#") and any(fnmatch(path, pattern) for path in above):
            allowed = line.startswith("!")
    return allowed


def test_the_service_image_installs_nothing_but_the_service(root: Path) -> None:
    """Of the extras only the provider's, tracing and models from afar are installed: no torch, no tests, no tools."""
    runs = " ".join(arguments(root / "Dockerfile", "RUN"))
    assert re.findall(r"\.\[([^]]*)\]", runs) == ["${PROVIDER},remote,tracing"]
    assert "torch" not in runs


def test_training_code_does_not_reach_the_service_image(root: Path) -> None:
    """The build of the service never sees training/."""
    assert not is_let_in("training/train.py", root / ".dockerignore")
    assert not is_let_in(".env", root / ".dockerignore")


def test_every_provider_is_an_extra_and_a_stage(root: Path) -> None:
    """Each value of PROVIDER names a final stage and an extra of the package, and the CPU is the default."""
    stages = [line.split()[-1] for line in arguments(root / "Dockerfile", "FROM")]
    providers = {stage.removeprefix("runtime-") for stage in stages if re.fullmatch(r"runtime-[a-z]+", stage)}
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert providers == {"cpu", "gpu"} <= extras.keys()
    assert "PROVIDER=cpu" in arguments(root / "Dockerfile", "ARG")


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_is_let_in(root: Path, image: str) -> None:
    """Every COPY names files of the repository that the image's ignore file lets into the build."""
    ignore_file = root / (f"{image}.dockerignore" if image != "Dockerfile" else ".dockerignore")
    for line in arguments(root / image, "COPY"):
        if "--from" in line:
            continue
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (root / source).exists(), source
            assert is_let_in(source, ignore_file), source


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_a_numbered_user_that_is_not_root(root: Path, image: str) -> None:
    """The user is a number, so that an orchestrator can see that it is not root."""
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", arguments(root / image, "USER")[-1])


def test_the_builders_umask_does_not_matter(root: Path) -> None:
    """Behind the last file that is copied from the checkout, all are made readable for any user id."""
    steps = instructions(root / "Dockerfile")
    copied = [i for i, (name, rest) in enumerate(steps) if name == "COPY" and "--from" not in rest]
    (changed,) = [i for i, (name, rest) in enumerate(steps) if name == "RUN" and "chmod -R u=rwX,go=rX /app" in rest]
    assert changed > max(copied)


def test_the_image_sets_settings_that_exist(root: Path) -> None:
    """A COGAN_ variable in the Dockerfile is a field of the service's settings."""
    names = re.findall(r"COGAN_([A-Z_]+)=", " ".join(arguments(root / "Dockerfile", "ENV")))
    assert set(names) == {"HOST", "MODELS_DIR", "PROVIDER"}  # and no port, so that a platform's PORT holds
    assert {name.lower() for name in names} <= Settings.model_fields.keys()


def test_the_service_starts_and_stops_by_name(root: Path) -> None:
    """The entry point, the signal that ends it and the health check are written out, not inherited."""
    dockerfile = root / "Dockerfile"
    assert arguments(dockerfile, "ENTRYPOINT") == ['["python", "-m", "service"]']
    assert arguments(dockerfile, "STOPSIGNAL") == ["SIGTERM"]
    (health_check,) = arguments(dockerfile, "HEALTHCHECK")
    assert health_check.endswith('CMD ["python", "/app/healthcheck.py"]')
