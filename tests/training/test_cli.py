"""The verbs' options, help and errors, through their console entries."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from training import adapt, evaluate, export, report, restore, sample, sweep, train, train_classifier, train_encoder
from training.cli import quieten_libraries
from training.config import Described
from training.config.data import DomainConfig
from training.config.experiment import Experiment
from training.config.networks import ClassifierConfig, GeneratorConfig, NetworkConfig
from training.losses.adversarial import LOSSES, PENALTIES
from training.zoo import CLASSIFIERS, DISCRIMINATORS, ENCODERS, GENERATORS

RunVerb = Callable[..., None]
VERBS = [adapt, train, evaluate, export, report, restore, sample, sweep, train_classifier, train_encoder]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_help_shows_the_command(run_verb: RunVerb, verb: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a target the help is the exact command and what it does."""
    run_verb(verb, "--help")
    with pytest.raises(SystemExit, match="2"):  # a script's empty variable is no success
        run_verb(verb)
    assert f"python -m {verb.__name__} " in capsys.readouterr().out


def test_libraries_say_nothing(write_experiment: Path, tmp_path: Path) -> None:
    """A training in mixed precision prints its own lines and its progress bar alone."""
    command = [sys.executable, "-m", "training.train", write_experiment, "--runs", tmp_path / "runs"]
    done = subprocess.run(
        [*map(str, command), "--machine.precision", "bf16-mixed", "--machine.threads", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip()]
    assert [line for line in lines if not re.match(r" *\d+%\|", line)] == []
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()] == [
        "tiny",
        *("digit", "edge", "negative"),
        *("generator", "discriminator"),
        "snapshots are not measured",
        "run folder",
        "done",
    ]


@pytest.mark.parametrize(("module", "heard"), [("torch.nn.modules", False), ("torch", False), ("training", True)])
def test_warnings_of_libraries_are_hidden(module: str, heard: bool) -> None:
    """Warnings about a library's own code are hidden; those about this project's are not."""
    quieten_libraries()
    with pytest.warns(UserWarning, match="deprecated") if heard else nullcontext():
        warnings.warn_explicit("deprecated", UserWarning, "file.py", 1, module=module)
    assert not logging.getLogger("lightning_fabric.utilities").isEnabledFor(logging.WARNING)


def test_help_lists_every_field(run_verb: RunVerb, write_experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field of the experiment is an option, with the sentence that stands below it."""
    with pytest.raises(SystemExit, match="0"):
        run_verb(train, write_experiment, "--help")
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    plain = [field.name for field in fields(Experiment)]
    parts = (
        "domains",
        "couplings",
        "lessons",
        "classifier",
        "generator",
        "discriminator",
        "encoder",
        "patches",
    )  # lists have options for their entries
    prefixed = [f"generator.{field.name}" for field in fields(GeneratorConfig)]
    prefixed += [f"discriminator.{field.name}" for field in fields(NetworkConfig)]
    prefixed += [f"classifier.{field.name}" for field in fields(ClassifierConfig)]
    prefixed += [f"domains.2.{field.name}" for field in fields(DomainConfig)]
    for name in plain + prefixed:
        assert name.split(".")[-1] in parts or f"--{name.replace('_', '-')}" in printed
    for sentence in ("Decay of the averaged generator", "Licence of the images", "1 for grey, 3 for RGB."):
        assert sentence in printed


@pytest.mark.parametrize(
    ("verb", "registries"),
    [(train, [GENERATORS, DISCRIMINATORS, ENCODERS, LOSSES, PENALTIES]), (train_classifier, [CLASSIFIERS])],
)
def test_help_says_what_each_choice_is(
    run_verb: RunVerb,
    write_experiment: Path,
    capsys: pytest.CaptureFixture[str],
    verb: ModuleType,
    registries: list[dict[str, Described]],
) -> None:
    """Every table, loss and penalty has a line with its name and its sentence."""
    with pytest.raises(SystemExit, match="0"):
        run_verb(verb, write_experiment, "--help")
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, choice in (one for registry in registries for one in registry.items()):
        assert f"- {name}: {choice.about}" in printed


def test_options_override_the_file(run_verb: RunVerb, write_experiment: Path, tmp_path: Path) -> None:
    """What the command line says counts, and the run folder keeps it."""
    overrides = ["--steps", 2, "--generator.learning-rate", 0.01, "--domains.1.description", "rings"]
    run_verb(train, write_experiment, "--runs", tmp_path / "runs", *overrides)
    kept = json.loads((tmp_path / "runs/00000_tiny/experiment.json").read_text())["experiment"]
    assert kept["steps"] == 2
    assert kept["generator"]["learning_rate"] == 0.01
    assert [domain["description"] for domain in kept["domains"]] == ["", "rings", ""]
    assert kept["batch_size"] == 4


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        (train, ["nowhere.toml"], "nowhere.toml"),
        (train, ["{experiment}", "--loss", "huber"], "loss = 'huber': must be one of"),
        (train, ["{experiment}", "--domains.0.source", "no/such"], "'no/such'"),
        (train, ["{experiment}", "--machine.accelerator", "cuda"], "machine.accelerator = 'cuda'"),
        (train, ["{experiment}", "--generator.width", "0"], "generator.width = 0.0: Input should be greater than 0"),
        (train, ["{folder}"], "is no run folder"),
        (train, ["{experiment}", "--runs", "{experiment}"], "File exists; name a folder, or a place where one"),
        (train, ["{experiment}", "--latent-dim", "70000"], "latent_dim = 70000"),
        (evaluate, ["{folder}", "--pairs", "1"], "pairs = 1"),
        (train_classifier, ["{experiment}", "--machine.accelerator", "cuda"], "accelerator = 'cuda'"),
        (evaluate, ["{folder}", "--pairs", "0"], "pairs = 0"),
        (export, ["{folder}", "--name", "Big Name"], "name = 'Big Name'"),
        (export, ["{folder}"], "is neither a run folder nor an exported model"),
        (restore, ["{folder}"], "is neither a run folder nor an exported model"),
        (report, ["{folder}", "{folder}"], "is no run folder"),
        (report, ["{folder}", "--to", "page.md"], "is no run folder"),
        (train_classifier, ["{experiment}", "--table", "deep"], "table = 'deep': must be one of digit"),
        (train_classifier, ["{experiment}", "--table", "digit_32"], "images have (28, 28): take digit_small, digit"),
        (sample, ["{folder}", "--scale", "65"], "scale = 65"),
    ],
)
def test_a_users_error_is_one_line(
    run_verb: RunVerb,
    write_experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: ModuleType,
    arguments: list[str],
    message: str,
) -> None:
    """It goes to stderr, the exit status is 2, and nothing is written."""
    arguments = [one.format(experiment=write_experiment, folder=tmp_path) for one in arguments]
    with pytest.raises(SystemExit, match="2"):
        run_verb(verb, *arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == [write_experiment]
