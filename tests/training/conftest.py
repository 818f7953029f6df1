"""Tiny experiments on a folder of digits: real runs of seconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from training.config import Precision
from training.config.data import DomainConfig
from training.config.experiment import Experiment, parse_experiment
from training.data.dataset import ImageSet, load_training_sets
from training.engine.machine import Machine
from training.engine.trainer import Trainer, check_labels
from training.losses.auxiliary import COUPLINGS
from training.metrics import label_free
from training.networks.weights import initialise
from training.pretrained import recogniser
from training.pretrained.classifier import Classifier, ClassOfChoice, share_choices
from training.pretrained.features import VGG19, LossNetwork, LossNetworks
from training.pretrained.recogniser import COUPLING, DomainRecogniser, OwnDomain
from training.zoo import CLASSIFIERS

CPU = Machine(accelerator="cpu", threads=1, precision="32-true")
KINDS: dict[str, dict[str, object]] = {
    "edge": {"transform": "edge"},
    "negative": {"transform": "negative", "forbidden_augmentations": ["color"]},
    "colour": {"channels": 3},
    "known": {"labelled": True},
    "balanced": {"labelled": True, "balanced": True},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    label_free.MEASURING_SIDE = 32  # pixels, to save time
    recogniser.STEPS = 50  # more where the recogniser itself is tested
    os.environ["COGAN_PRECISION"] = "32-true"  # whatever this machine is good at, in other processes too


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    """Return the CPU."""
    return CPU.fabric()


@pytest.fixture(scope="session")
def make_experiment(digits_folder: Path) -> Callable[..., Experiment]:
    """Return what builds an experiment on the digits, with networks of a few channels."""

    def make(names: Sequence[str] = ("digit", "edge"), **changes: Any) -> Experiment:
        """Build it; `changes` replace fields, those of the networks within theirs."""
        generator = {"table": "digit_leaky", "width": 1 / 128} | changes.pop("generator", {})
        discriminator = {"table": "digit_strided", "width": 1 / 64} | changes.pop("discriminator", {})
        domains = [{"name": name, "source": str(digits_folder), **KINDS.get(name, {})} for name in names]
        fields = {"name": "tiny", "data_license": "made for tests", "domains": domains, "latent_dim": 8}
        fields |= {"batch_size": 4, "generator": generator, "discriminator": discriminator}
        return parse_experiment(fields | changes)

    return make


def random_feature_network() -> VGG19:
    """Make a narrow one whose layers let an image's contrast through, as those that have learned do."""
    network = VGG19(1 / 32)
    initialise(network, "he")
    return network


@cache
def recogniser_of_noise(names: tuple[str, ...], size: tuple[int, int]) -> DomainRecogniser:
    """Train a recogniser of domains on noise."""
    images = {name: torch.randint(256, (9, 1, *size), dtype=torch.uint8) for name in names}
    return DomainRecogniser(images, torch.device("cpu"), COUPLING)


def random_loss_networks(experiment: Experiment) -> LossNetworks:
    """Make the loss networks of an experiment, small, untrained and always the same."""
    torch.manual_seed(0)
    tables = {table.size: name for name, table in CLASSIFIERS.items()}
    names = tuple(domain.name for domain in experiment.domains)
    kinds: dict[str, Callable[[DomainConfig], LossNetwork]] = {
        "classifiers": lambda domain: Classifier(tables[experiment.size], domain.channels, 10),
        "choices": lambda domain: ClassOfChoice(
            Classifier(tables[experiment.size], domain.channels, 10), share_choices(torch.ones(10), 10)
        ),
        "feature_network": lambda _: random_feature_network(),
        "recogniser": lambda domain: OwnDomain(recogniser_of_noise(names, experiment.size), domain.name),
    }
    return {
        coupling.name: {domain.name: kinds[required](domain).eval() for domain in experiment.domains}
        for coupling in experiment.couplings
        if (required := COUPLINGS[coupling.name].requires) in kinds
    }


@pytest.fixture(scope="session")
def make_loss_networks() -> Callable[[Experiment], LossNetworks]:
    """Return what makes the loss networks of an experiment."""
    return random_loss_networks


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """Return what builds the trainer of an experiment on its images, each domain's read once.

    Its loss networks are untrained.
    """
    known: dict[object, dict[str, ImageSet]] = {}

    def make(experiment: Experiment, precision: Precision = "32-true") -> Trainer:
        if experiment.domains not in known:
            known[experiment.domains] = load_training_sets(experiment)
        sets = known[experiment.domains]
        labels = check_labels(experiment, {name: loaded.labels for name, loaded in sets.items()})
        images = {name: loaded.images for name, loaded in sets.items()}
        fabric = replace(CPU, precision=precision).fabric()
        return Trainer(experiment, images, fabric, random_loss_networks(experiment), labels)

    return make


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what runs a verb's console entry with the arguments of a command line."""

    def run(verb: ModuleType, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", [verb.__name__, *map(str, arguments)])
        verb.main()

    return run


@pytest.fixture
def write_experiment(tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an experiment file on the digits below $COGAN_DATA: three domains, five steps."""
    monkeypatch.setenv("COGAN_DATA", str(digits_folder.parent))
    file = tmp_path / "tiny.toml"
    domains = "".join(
        f'[[domains]]\nname = "{name}"\nsource = "someone/digits"\ntransform = "{transform}"\n'
        for name, transform in (("digit", "identity"), ("edge", "edge"), ("negative", "negative"))
    )
    file.write_text(
        f"""name = "tiny"
data_license = "made for tests"
latent_dim = 8
batch_size = 4
steps = 5
{domains}
[generator]
table = "digit_leaky"
width = 0.01
[discriminator]
table = "digit_strided"
width = 0.02
penalty = "r1"
"""
    )
    return file


@pytest.fixture
def as_a_user() -> Iterator[Path]:
    """Return a folder of a user who is not root, as whom the test runs."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)
