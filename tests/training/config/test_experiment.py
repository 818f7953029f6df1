"""Recipes: how they are read, and the errors of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import training
from training.config.experiment import EXPERIMENT, load_experiment, parse_experiment
from training.engine.state import build_discriminator, build_generator
from training.errors import ConfigError

FILES = sorted((Path(training.__file__).parent / "recipes").glob("*.toml"))
DIGIT = {"name": "digit", "source": "ylecun/mnist"}
COLOUR = {"name": "colour", "source": "uoft-cs/cifar10", "channels": 3}
FIELDS: dict[str, Any] = {"name": "a", "data_license": "none", "domains": [DIGIT]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_experiment_builds_its_networks(file: Path) -> None:
    """What is committed can be run, is named after its file and says what each domain shows."""
    experiment = load_experiment(file)
    with torch.device("meta"):  # without memory for the weights
        build_generator(experiment)
        build_discriminator(experiment)
    assert experiment.name == file.stem
    assert all(domain.description for domain in experiment.domains)


@pytest.mark.parametrize("name", ["digit_edge_paper", "digit_edge_unshared", "mnist_to_usps", "usps_to_mnist"])
def test_the_official_experiments_begin_as_the_official_code(name: str) -> None:
    """Both networks are drawn as its PyTorch version draws them, and decay as there.

    Its loss is a mean over two domains, where it is a sum here, so the decay is twice its 5e-4.
    """
    experiment = load_experiment(FILES[0].with_stem(name))
    for network in (experiment.generator, experiment.discriminator):
        assert (network.initialisation, network.initial_bias) == ("xavier", 0.1)
        assert (network.initial_slope, network.weight_decay) == (None, 2 * 5e-4)


def test_an_experiment_survives_its_run_folder() -> None:
    """Plain values of an experiment, as JSON keeps them, give the same experiment."""
    experiment = load_experiment(FILES[0])
    assert parse_experiment(EXPERIMENT.dump_python(experiment, mode="json")) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepps": 3}, ["stepps = 3", "Unexpected"]),
        ({"domains": [DIGIT | {"colour": "red"}]}, ["domains.0.colour = 'red'", "Unexpected"]),
        ({"steps": "many"}, ["steps = 'many'", "valid integer"]),
        ({"steps": 0}, ["steps = 0", "greater than or equal to 1"]),
        ({"warmdown": 1.5}, ["warmdown = 1.5", "less than or equal to 1"]),
        ({"halve_every": 0}, ["halve_every = 0", "greater than or equal to 1"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"prior": "gauss"}, ["prior = 'gauss'", "'normal' or 'uniform'"]),
        ({"loss": "huber"}, ["loss = 'huber'", "must be one of ce, lsgan, wgan, hinge, relativistic"]),
        (
            {"loss": "wgan", "discriminator": {"real_label": 0.9}},
            ["real_label, fake_label = (0.9, 0.0)", "'wgan' has no labels; ce, lsgan have"],
        ),
        ({"discriminator": {"fake_label": 0.6}}, ["discriminator.fake_label = 0.6", "less than 0.5"]),
        ({"generator": {"table": "big"}}, ["generator.table = 'big'", "digit, digit_leaky"]),
        (
            {"generator": {"table": "face"}},
            ["discriminator.table = 'digit'", "(28, 28) pixels", "take face, photo_128, face_layer_norm"],
        ),
        (
            {
                "generator": {"table": "cifar"},
                "discriminator": {"table": "cifar"},
                "couplings": [{"name": "cycle", "weight": 1.0}],
            },
            ["encoder.table = 'digit'", "images have (32, 32): take plain_32"],
        ),
        ({"generator": {"width": float("inf")}}, ["generator.width = inf", "finite"]),
        ({"generator": {"betas": [0.5, 1.5]}}, ["generator.betas.1 = 1.5", "less than 1"]),
        ({"generator": {"shared_layers": 6}}, ["generator.shared_layers = 6", "has 5 layers"]),
        (
            {"discriminator": {"table": "digit_strided", "initial_slope": 0.1}},
            ["discriminator.initial_slope = 0.1", "its table has no PReLU"],
        ),
        ({"discriminator": {"penalty": "r3"}}, ["discriminator.penalty = 'r3'", "none, r1, r2"]),
        (
            {"discriminator": {"penalty": "r1", "penalties": [{"name": "r1", "weight": 1.0}]}},
            ["penalties repeat: ['r1', 'r1']"],
        ),
        (
            {"discriminator": {"penalties": [{"name": "none", "weight": 1.0}]}},
            ["discriminator.penalties.0.name = 'none'", "r1, r2, gradient_penalty"],
        ),
        (
            {"discriminator": {"augmentations": ["colour"]}},
            ["discriminator.augmentations.0 = 'colour'", "color, translation, cutout"],
        ),
        (
            {"domains": [DIGIT | {"forbidden_augmentations": ["mirror"]}]},
            ["domains.0.forbidden_augmentations.0 = 'mirror'", "color, translation, cutout, flip"],
        ),
        ({"discriminator": {"noise_until": 0}}, ["discriminator.noise_until = 0", "greater than 0"]),
        ({"discriminator": {"updates": 0}}, ["discriminator.updates = 0", "greater than or equal to 1"]),
        ({"discriminator": {"clip_weights": 0.0}}, ["discriminator.clip_weights = 0.0", "greater than 0"]),
        ({"generator": {"optimiser": "lion"}}, ["generator.optimiser = 'lion'", "adam, sgd, rmsprop"]),
        ({"generator": {"clip_gradients": -1}}, ["generator.clip_gradients = -1", "greater than 0"]),
        ({"discriminator": {"shared_layers": 5}}, ["discriminator.shared_layers = 5", "has 4 layers"]),
        (
            {"domains": [DIGIT | {"transform": "x"}]},
            ["domains.0.transform = 'x'", "identity, edge, negative"],
        ),
        ({"domains": [DIGIT | {"channels": 2}]}, ["domains.0.channels = 2", "1 or 3"]),
        ({"domains": [DIGIT | {"name": "Digit 1"}]}, ["domains.0.name = 'Digit 1'", "[a-z]"]),
        ({"domains": []}, ["domains", "at least 1"]),
        ({"domains": [DIGIT, DIGIT]}, ["domain names repeat: ['digit', 'digit']"]),
        (
            {"couplings": [{"name": "semantic", "weight": 1.0}] * 2},
            ["couplings repeat: ['semantic', 'semantic']"],
        ),
        (
            {"couplings": [{"name": "charm", "weight": 1.0}]},
            ["couplings.0.name = 'charm'", "weights, features"],
        ),
        (
            {"couplings": [{"name": "features", "weight": 1.0}]},
            ["'features': layers = 1", "0 of their own before the image", "smaller generator.shared_layers"],
        ),
        (
            {
                "generator": {"shared_layers": 2},
                "couplings": [{"name": "weights", "weight": 1.0, "layers": 3}],
            },
            ["'weights': layers = 3", "2 of their own before the image"],
        ),
        (
            {"couplings": [{"name": "cycle", "weight": 1.0}], "encoder": {"shared_layers": 6}},
            ["encoder.shared_layers = 6", "has 5 layers"],
        ),
        (
            {"discriminator": {"own_last_layers": 2, "shared_layers": 3}},
            ["discriminator.shared_layers = 3", "has 4 layers, 2 of them own_last_layers"],
        ),
        (
            {
                "domains": [DIGIT, COLOUR],
                "discriminator": {"own_last_layers": 1, "shared_layers": 3},
            },
            ["discriminator.shared_layers = 3", "grey and RGB"],
        ),
        (
            {"domains": [DIGIT | {"label_columns": ["Male"]}, COLOUR]},
            ["label_columns differ", "'digit': ('Male',)", "'colour': ()"],
        ),
        (
            {
                "domains": [DIGIT | {"label_columns": ["Male"], "labelled": True}],
                "lessons": [{"name": "labels", "weight": 1.0}],
            },
            ["labelled domains ['digit'] have label_columns", "lessons are of classes"],
        ),
        ({"batch_size": 1}, ["batch_size = 1", "the generator normalises over its batch", "2 or more"]),
        ({"domains": [DIGIT | {"name": "latent"}]}, ["['latent']", "take others"]),
        ({"domains": [DIGIT | {"name": "classes"}]}, ["['classes']", "take others"]),
        ({"domains": [DIGIT | {"name": "half"}]}, ["['half']", "take others"]),
        (
            {"domains": [DIGIT, COLOUR], "generator": {"shared_layers": 5}},
            ["generator.shared_layers = 5", "grey and RGB"],
        ),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: list[str]) -> None:
    """The error says which field, what it was and what is allowed, in one line."""
    with pytest.raises(ConfigError) as caught:
        parse_experiment(FIELDS | changes)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in message)


def test_a_missing_field_is_named() -> None:
    """What has no default must be said."""
    with pytest.raises(ConfigError, match=r"data_license.*required"):
        parse_experiment({"name": "a", "domains": [DIGIT]})


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b'name = "a"'])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Neither broken TOML nor bytes that are no text nor a half experiment ends in a traceback."""
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_experiment(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is the user's to mend."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_experiment(tmp_path / "nowhere.toml")


def test_what_a_wrong_part_makes_wrong_is_not_told() -> None:
    """A domain that cannot be read is one fault, not a list without domains, too."""
    with pytest.raises(ConfigError) as caught:
        parse_experiment(FIELDS | {"domains": [DIGIT | {"chanels": 3}]})
    assert str(caught.value) == "domains.0.chanels = 3: Unexpected keyword argument"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, encoding: str) -> None:
    """Editors of Windows write one, and their own ends of lines."""
    text = 'name = "a"\r\ndata_license = "für alle"\r\n[[domains]]\r\nname = "b"\r\nsource = "c"\r\n'
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode(encoding))
    assert load_experiment(file).data_license == "für alle"


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "is UTF-16 or no text, and TOML is UTF-8: save it as UTF-8"),
        ("utf-16-be", "is UTF-16 or no text"),
        ("latin-1", "line 2 is not UTF-8, which TOML is: save it as UTF-8"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, encoding: str, message: str) -> None:
    """The error has the file, what is wrong with it and what to do."""
    file = tmp_path / "a.toml"
    file.write_bytes('name = "a"\ndata_license = "für alle"\n'.encode(encoding))
    with pytest.raises(ConfigError, match=rf"a\.toml: {message}"):
        load_experiment(file)
