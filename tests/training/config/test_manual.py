"""The manuals of recipes are true and complete."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import training
from training.config.data import DomainConfig
from training.config.experiment import Experiment, load_experiment, parse_experiment
from training.config.networks import ClassifierConfig
from training.losses.adversarial import LOSSES, PENALTIES
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS
from training.losses.pixels import AUGMENTATIONS
from training.networks.weights import OPTIMISERS
from training.zoo import CLASSIFIERS, DISCRIMINATORS, ENCODERS, GENERATORS

DOCS = Path(training.__file__).parents[1] / "docs"
FILES = sorted((Path(training.__file__).parent / "recipes").glob("*.toml"))
DIGIT = {"name": "digit", "source": "ylecun/mnist"}
PARTS = (Experiment, DomainConfig)
SOFT_COGAN = """
    dataset loss disc_penalty gen_penalty batch_size epochs disc_iters clip penalty_weight_d penalty_weight_g
    lr_d lr_g b1 b2 optim_d optim_g num_samples_to_gen images_while_training dir g_dim d_dim gan_type
    noise_dim limit_dataset scale_data label_smooth input_noise purpose grayscale weight_decay bias_init
    prelu_init noise_type weight_init g_arch d_arch cogan_data semantic_loss semantic_weight classifier_path
    use_cycle cycle_weight use_firstlayer shared_layers feature_loss fl_high_weight fl_low_weight
    perceptual_loss style_weight content_weight
"""
FIELDS: dict[str, Any] = {"name": "a", "data_license": "none", "domains": [DIGIT]}


def test_the_manual_has_every_choice() -> None:
    """docs/training.md names all tables, losses, penalties and so on, and its example works."""
    manual = (DOCS / "training.md").read_text()
    for registry in (LOSSES, PENALTIES, COUPLINGS, OPTIMISERS, AUGMENTATIONS):
        assert [name for name in registry if f"`{name}`" not in manual] == []
    for tables in (GENERATORS, DISCRIMINATORS, ENCODERS, CLASSIFIERS):
        assert [name for name in tables if f"`{name}`" not in manual] == []
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)[0])
    parsed = parse_experiment(FIELDS | example)
    assert [penalty.weight for penalty in parsed.discriminator.all_penalties] == [10.0]


def test_the_manual_has_every_option_of_soft_cogan() -> None:
    """Each option of its command line is in the table of its options, and what stands beside it exists."""
    manual = (DOCS / "training.md").read_text()
    table = manual.split("Soft-CoGAN (P9Project)")[1].split("Its weights hold")[0]
    options = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE))
    written = {word for option in options for word in re.findall(r"\w+", option)}
    assert set(SOFT_COGAN.split()) - written == set()
    known = {field.name for part in PARTS for field in fields(part)}
    for field in ("sample_count", "sample_every", "purpose", "where", "latent_dim"):
        assert f"`{field}`" in table
        assert field in known


def test_the_manual_names_experiments_that_are() -> None:
    """The table of architectures names experiments that have each, where there are some, and no others."""
    manual = (DOCS / "training.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| \d+ \|.*\| ([^|]+) \|$", manual, re.MULTILINE)
    assert {name for name, _ in rows} == set(GENERATORS) | set(DISCRIMINATORS)
    committed = {file.stem: load_experiment(file) for file in FILES}
    for name, experiments in rows:
        using = {stem for stem, built in committed.items() if name in tables_of(built)}
        named = set(re.findall(r"`(\w+)`", experiments))
        assert named <= using
        assert bool(named) == bool(using), name


def tables_of(experiment: Experiment) -> set[str]:
    """Return the tables of an experiment's generator and discriminator."""
    return {experiment.generator.table, experiment.discriminator.table}


def test_every_experiment_has_a_line() -> None:
    """A page that says what there is to train names each file."""
    pages = "".join((DOCS / page).read_text() for page in ("training.md", "images.md", "adaptation.md"))
    assert [file.stem for file in FILES if f"`{file.stem}`" not in pages] == []


def test_the_manual_has_every_auxiliary_loss() -> None:
    """docs/adaptation.md names each auxiliary loss and each field of the classifier; its example works."""
    manual = (DOCS / "adaptation.md").read_text()
    names = [*AUXILIARY_LOSSES, *(f"classifier.{field.name}" for field in fields(ClassifierConfig))]
    assert [name for name in names if f"`{name}`" not in manual] == []
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)[0])
    assert parse_experiment(FIELDS | example).lessons


def test_the_manual_tells_where_images_come_from() -> None:
    """docs/images.md has all that a domain can say of its images, and the source of every experiment."""
    manual = (DOCS / "images.md").read_text()
    untold = {field.name for field in fields(DomainConfig) if f"`{field.name}`" not in manual}
    assert untold == {"name", "description", "forbidden_augmentations"}  # which make no image another
    experiments = {file.stem: load_experiment(file) for file in FILES}
    sources = {name: {domain.source for domain in experiments[name].domains} for name in experiments}
    for name, told in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", manual.split("## Recipes")[1], re.MULTILINE):
        assert sources[name] <= set(re.findall(r"`([\w/-]+)`", told)), name
    assert [name for name in sources if not all(f"`{source}`" in manual for source in sources[name])] == []


def test_the_manual_s_domains_are_domains() -> None:
    """The example of docs/images.md is an experiment's domains as it stands."""
    manual = (DOCS / "images.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    domains = parse_experiment(FIELDS | tomllib.loads(example)).domains
    assert [domain.where for domain in domains] == [{"Eyeglasses": True}, {"Eyeglasses": False}]


def test_the_manual_has_no_field_that_is_not() -> None:
    """Each `generator.field` or `discriminator.field` that docs/training.md writes is one."""
    manual = (DOCS / "training.md").read_text()
    written = set(re.findall(r"`\W*(generator|discriminator)\.(\w+)", manual))
    assert len(written) > 10
    assert [pair for pair in written if not hasattr(getattr(parse_experiment(FIELDS), pair[0]), pair[1])] == []
