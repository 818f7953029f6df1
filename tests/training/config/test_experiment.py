"""Recipes: how they are read, and the errors of wrong ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import training
from training.cli import parse
from training.config.experiment import EXPERIMENT, Experiment, load_experiment, parse_experiment
from training.data.choices import Choices
from training.engine.state import build_discriminator, build_generator
from training.errors import ConfigError
from training.runs.folder import RunFolder
from training.train import TrainOptions

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
        (
            {"domains": [DIGIT, COLOUR], "generator": {"equal_heads": True}},
            ["generator.equal_heads = true", "grey and of RGB"],
        ),
        ({"seed": True}, ["seed = True", "valid integer"]),
        ({"steps": "100"}, ["steps = '100'", "valid integer"]),
        ({"steps": 100.5}, ["steps = 100.5", "valid integer"]),
        ({"generator": {"choices": 100}}, ["generator.choices = 100", "must be less than latent_dim = 100"]),
        ({"generator": {"optimiser": "lion"}}, ["generator.optimiser = 'lion'", "adam, sgd, rmsprop"]),
        ({"generator": {"clip_gradients": -1}}, ["generator.clip_gradients = -1", "greater than 0"]),
        ({"discriminator": {"shared_layers": 5}}, ["discriminator.shared_layers = 5", "has 4 layers"]),
        ({"domains": [DIGIT | {"transform": "x"}]}, ["domains.0.transform = 'x'", "identity, edge, negative"]),
        ({"domains": [DIGIT | {"channels": 2}]}, ["domains.0.channels = 2", "1 or 3"]),
        ({"domains": [DIGIT | {"name": "Digit 1"}]}, ["domains.0.name = 'Digit 1'", "[a-z]"]),
        ({"domains": []}, ["domains", "at least 1"]),
        ({"domains": [DIGIT, DIGIT]}, ["domain names repeat: ['digit', 'digit']"]),
        ({"couplings": [{"name": "semantic", "weight": 1.0}] * 2}, ["couplings repeat: ['semantic', 'semantic']"]),
        ({"couplings": [{"name": "charm", "weight": 1.0}]}, ["couplings.0.name = 'charm'", "weights, features"]),
        (
            {"couplings": [{"name": "features", "weight": 1.0}]},
            ["'features': layers = 1", "0 of their own before the image", "smaller generator.shared_layers"],
        ),
        (
            {"generator": {"shared_layers": 2}, "couplings": [{"name": "weights", "weight": 1.0, "layers": 3}]},
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
            {"domains": [DIGIT, COLOUR], "discriminator": {"own_last_layers": 1, "shared_layers": 3}},
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


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b'name = "a"', b"seed = " + b"9" * 5000])
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
    assert str(caught.value) == "domains.0.chanels = 3: Unexpected keyword argument; did you mean channels?"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"stesp": 4}, "did you mean steps?"),
        ({"Batch-Size": 4}, "did you mean batch_size?"),
        ({"discriminator": {"augmentatons": []}}, "did you mean augmentations?"),
        ({"domains": [DIGIT | {"prune": {"bellow": 0.1}}]}, "did you mean below?"),
        ({"domains": [DIGIT | {"prune": {"x": 0.1}}]}, "fields there are below, classifiers"),
        ({"domains": DIGIT}, "write [[domains]], a list of tables"),
        ({"domains": [DIGIT | {"patches": {"source": "x"}}]}, "write [[domains.patches]], a list of tables"),
        ({"domains": [DIGIT | {"label_columns": "Smiling"}]}, "write label_columns = [...], a list"),
        ({"domains": [DIGIT | {"merged_classes": ["c", "C"]}]}, "write a list of lists, [[...]]"),
    ],
)
def test_a_misspelt_field_has_its_remedy(changes: dict[str, Any], remedy: str) -> None:
    """The error ends in the field that may be meant, or those that there are, or how it is written."""
    with pytest.raises(ConfigError) as caught:
        parse_experiment(FIELDS | changes)
    assert str(caught.value).endswith(f"; {remedy}")


def test_a_wrong_field_of_a_recipe_of_folders_has_its_place(tmp_path: Path) -> None:
    """Fields that are chosen by the images wait until those of the domains are valid."""
    file = tmp_path / "a.toml"
    file.write_text(f'[[domains]]\nsource = "{tmp_path}"\nheldout = 0.1\n')
    with pytest.raises(ConfigError, match=r"a\.toml: .*domains\.0\.heldout = 0\.1: .+ did you mean held_out\?"):
        load_experiment(file, Choices(on_gpu=False))


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


def test_a_recipe_without_end_of_nesting_is_named(tmp_path: Path) -> None:
    """It is an error like another, not a stack of calls."""
    file = tmp_path / "a.toml"
    file.write_text("steps = " + 20_000 * "[")
    with pytest.raises(ConfigError, match=r"a\.toml: lists or tables lie in one another too deeply"):
        load_experiment(file)


MANUAL = Path(training.__file__).parents[1] / "docs" / "training.md"
BASE = """
name = "base"
data_license = "none"
steps = 7
domains = [
    { name = "digit", source = "ylecun/mnist", where = { old = true } },
    { name = "edge", source = "ylecun/mnist", transform = "edge" },
]
couplings = [{ name = "semantic", weight = 1.0 }, { name = "style", weight = 2.0 }]
generator = { width = 0.5, learning_rate = 1e-3, betas = [0.1, 0.2] }
"""


def load(folder: Path, **texts: str) -> Experiment:
    """Write recipes into files of a folder and read the last; `base` is above unless it is given."""
    for name, text in {"base": BASE, **texts}.items():
        (folder / f"{name}.toml").write_text(text)
    return load_experiment(folder / f"{list(texts)[-1]}.toml")


def test_a_recipe_is_its_base_but_for_what_it_says(tmp_path: Path) -> None:
    """Tables merge by key; numbers, lists and arrays of tables replace; the same recipe in one file is equal."""
    child = """
    base = "base.toml"
    name = "child"
    steps = 8
    couplings = [{ name = "content", weight = 3.0 }]
    generator = { width = 0.25, betas = [0.3, 0.4] }
    discriminator.penalty = "r1"
    """
    whole = BASE.split("couplings")[0].replace("base", "child").replace("steps = 7", "steps = 8")
    whole += """
    couplings = [{ name = "content", weight = 3.0 }]
    generator = { width = 0.25, learning_rate = 1e-3, betas = [0.3, 0.4] }
    discriminator.penalty = "r1"
    """
    assert load(tmp_path, child=child) == load(tmp_path, whole=whole)


@pytest.mark.parametrize(
    ("domains", "read"),
    [
        ("", {"digit": ("ylecun/mnist", "identity", 1), "edge": ("ylecun/mnist", "edge", 1)}),
        ('[{ name = "edge" }]', {"edge": ("ylecun/mnist", "edge", 1)}),
        (
            '[{ name = "edge", channels = 3 }, { name = "new", source = "x" }, { name = "digit" }]',
            {
                "edge": ("ylecun/mnist", "edge", 3),
                "new": ("x", "identity", 1),
                "digit": ("ylecun/mnist", "identity", 1),
            },
        ),
    ],
    ids=["all", "dropped", "added, changed and ordered anew"],
)
def test_domains_merge_by_name(tmp_path: Path, domains: str, read: dict[str, tuple[str, str, int]]) -> None:
    """A child's list has all its domains in their order; those that the base has need only what differs."""
    text = 'base = "base.toml"\nname = "child"\n' + (f"domains = {domains}" if domains else "")
    loaded = load(tmp_path, child=text).domains
    assert {domain.name: (domain.source, domain.transform, domain.channels) for domain in loaded} == read
    assert [domain.name for domain in loaded] == list(read)


def test_a_table_within_a_domain_merges_too(tmp_path: Path) -> None:
    """A condition that a child adds to `where` stands beside the base's."""
    domains = 'domains = [{ name = "digit", where = { label = 3 } }]'
    (domain,) = load(tmp_path, child=f'base = "base.toml"\nname = "child"\n{domains}').domains
    assert domain.where == {"old": True, "label": 3}


def test_bases_chain_across_folders(tmp_path: Path) -> None:
    """Each base is named relative to the file that names it, wherever that is; the nearest file wins."""
    (tmp_path / "sub" / "far").mkdir(parents=True)
    (tmp_path / "sub" / "middle.toml").write_text('base = "../base.toml"\nname = "m"\nsteps = 8\nseed = 1\n')
    last = tmp_path / "sub" / "far" / "last.toml"
    text = 'base = "../middle.toml"\r\nname = "last"\r\nseed = 2\r\n'
    last.write_bytes(text.encode("utf-8-sig"))
    (tmp_path / "base.toml").write_bytes(BASE.encode("utf-8-sig"))
    experiment = load_experiment(last)
    assert (experiment.name, experiment.steps, experiment.seed, experiment.generator.width) == ("last", 8, 2, 0.5)


def test_options_go_over_the_merged_recipe(tmp_path: Path) -> None:
    """An option replaces what recipe or base says, and the base's other fields stay."""
    experiment = load(tmp_path, child='base = "base.toml"\nname = "child"\nsteps = 8\n')
    parsed = parse(TrainOptions(experiment), ["--steps", "9", "--generator.width", "0.1"]).experiment
    assert (parsed.steps, parsed.generator.width, parsed.generator.learning_rate) == (9, 0.1, 1e-3)


def test_the_manual_s_recipes_build_on_another(tmp_path: Path) -> None:
    """The examples of docs/training.md are recipes beside the committed ones."""
    examples = re.findall(r"```toml\n(base = .*?)```", MANUAL.read_text(), re.DOTALL)
    digit_edge = FILES[0].with_stem("digit_edge").read_text()
    started, mine = (load(tmp_path, digit_edge=digit_edge, mine=example) for example in examples)
    assert (mine.name, mine.domains[1].count) == ("digit_edge_mine", 5000)
    assert (started.name, started.generator.start) == ("usps_edge", "models/digit_edge/8/model.onnx")


def test_a_run_keeps_the_whole_recipe(tmp_path: Path) -> None:
    """A run needs neither file again: its folder has every field, and no base."""
    experiment = load(tmp_path, child='base = "base.toml"\nname = "child"\n')
    run = RunFolder.create(tmp_path / "runs", experiment)
    for file in tmp_path.glob("*.toml"):
        file.unlink()
    assert RunFolder.open(run.path).experiment() == experiment


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            '"nowhere.toml"',
            "base = 'nowhere.toml': there is no such file; the path starts at this recipe's folder, {folder}",
        ),
        ('""', "base = '': there is no such file"),
        ('"."', "base = '.': there is no such file"),
        ('"\\u0000"', r"base = '\x00': there is no such file"),
        (f'"{"a" * 300}"', "File name too long"),
        ("3", 'base = 3: must be the path of one recipe, as in base = "digit_edge.toml"'),
        ("true", "base = True: must be the path of one recipe"),
        ('["base.toml"]', "base = ['base.toml']: must be the path of one recipe"),
        ("{ file = 1 }", "base = {{'file': 1}}: must be the path of one recipe"),
        ('"child.toml"', "in a cycle, child.toml -> child.toml; remove one base"),
    ],
    ids=lambda value: value[:20],
)
def test_a_wrong_base_is_named(tmp_path: Path, base: str, message: str) -> None:
    """One line has the file that names the base, what is wrong with it and what to do."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, child=f'base = {base}\nname = "child"\n')
    assert str(caught.value).startswith(f"{tmp_path / 'child.toml'}: ")
    assert message.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_longer_cycle_is_named(tmp_path: Path) -> None:
    """The error has the files of the cycle alone, not those that lead to it."""
    names = {"base": "b", "b": "c", "c": "b", "child": "base"}
    texts = {name: f'base = "./{base}.toml"\nname = "x"\n' for name, base in names.items()}
    with pytest.raises(ConfigError, match=r"[/\\]c\.toml: .* in a cycle, b\.toml -> c\.toml -> b\.toml;"):
        load(tmp_path, **texts)


@pytest.mark.parametrize(
    ("base", "child", "message"),
    [
        ("generator.wdth = 1.0", "", "base.toml: generator.wdth = 1.0: Unexpected"),
        ("", "generator.wdth = 1.0", "child.toml: generator.wdth = 1.0: Unexpected"),
        ("generator.shared_layers = 9", "", "base.toml: generator.shared_layers = 9: its table"),
        ("", "generator = 3", "child.toml: generator = 3"),
        ('precision = "bf16-mixed"', "", "base.toml: precision belongs to the machine"),
        ("", "domains = 3", "child.toml: domains = 3"),
        ("", "domains = [3]", "child.toml: domains.0 = 3"),
        ("", "domains = [{ name = [1] }]", "child.toml: domains.0.name = [1]"),
        ("", "domains = [{ name = 'new' }]", "child.toml: domains.0.source"),
        ("", "domains = [{ name = 'edge' }, { name = 'edge' }]", "child.toml: domain names repeat"),
        ("steps = ", "", "base.toml: Invalid value"),
    ],
)
def test_an_error_names_the_file_of_the_field(tmp_path: Path, base: str, child: str, message: str) -> None:
    """A base is checked by itself, so that what it says wrongly is not looked for in those that build on it."""
    text = 'name = "base"\ndata_license = "none"\ndomains = [{ name = "edge", source = "ylecun/mnist" }]\n'
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(tmp_path, base=text + base, child=f'base = "base.toml"\nname = "child"\n{child}')


@pytest.mark.parametrize("text", ['base = "base.toml"', 'base = "base.toml"\nname = "child"'])
def test_the_name_is_never_the_base_s(tmp_path: Path, text: str) -> None:
    """Two recipes of one name would pass for one, so every recipe says its own."""
    if "child" in text:
        assert load(tmp_path, child=text).name == "child"
    else:
        with pytest.raises(ConfigError, match=r"child\.toml: name: .*required"):
            load(tmp_path, child=text)


def test_a_base_is_no_field() -> None:
    """Only files build on each other: what a run keeps has no base."""
    with pytest.raises(ConfigError, match=r"base = 'a\.toml': Unexpected"):
        parse_experiment(FIELDS | {"base": "a.toml"})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_recipe_says_only_what_its_base_does_not(file: Path) -> None:
    """A recipe that builds on another repeats none of its numbers, words and lists."""
    values = tomllib.loads(file.read_text())
    if "base" in values:
        inherited = EXPERIMENT.dump_python(load_experiment(file.parent / values["base"]), mode="json")
        for name, value in values.items():
            if isinstance(value, dict):
                assert [key for key in value if value[key] == inherited[name][key]] == [], name
            elif name != "domains":
                assert value != inherited.get(name), name
