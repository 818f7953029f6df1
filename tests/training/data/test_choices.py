"""A recipe of folders alone is completed by what the images are like, and what it names holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.training.data.folders import write
from tests.training.data.picture_sets import SIZE, pictures, write_split
from training import train
from training.config.experiment import Experiment, load_experiment
from training.data.choices import Choices
from training.errors import ConfigError, DataError
from training.runs.folder import RunFolder
from training.zoo.modern import SIDES


def write_pictures(folder: Path, size: tuple[int, int], mode: str, count: int = 12) -> None:
    """Write JPEGs of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng([*folder.name.encode()])
    width, height = size
    for number in range(count):
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        Image.fromarray(random.integers(256, size=shape, dtype=np.uint8)).save(folder / f"{number}.jpg")


def complete(
    tmp_path: Path, text: str = "", on_gpu: bool = False, **folders: tuple[tuple[int, int], str]
) -> Experiment:
    """Write folders of pictures, and a recipe that names them alone and says `text`; load it."""
    for name, (size, mode) in folders.items():
        write_pictures(tmp_path / name, size, mode)
    domains = "".join(f'[[domains]]\nsource = "{tmp_path / name}"\n' for name in folders)
    file = tmp_path / "My pictures.toml"
    file.write_text(f"{text}\n{domains}")
    return load_experiment(file, Choices(on_gpu))


SQUARE = ((64, 64), "RGB")


def test_two_folders_are_enough(tmp_path: Path) -> None:
    """Names, colour, test images, architecture, penalty and augmentations follow from the folders."""
    experiment = complete(tmp_path, day=((90, 70), "RGB"), night=((64, 100), "L"))
    assert experiment.name == "my_pictures"
    assert [(d.name, d.channels, d.crop, d.held_out) for d in experiment.domains] == [
        ("day", 3, 1.0, 0.17),
        ("night", 1, 1.0, 0.17),
    ]
    assert experiment.size == (64, 64)
    assert {experiment.generator.table, experiment.discriminator.table} == {"modern_64"}
    assert experiment.discriminator.augmentations == ("flip", "color", "translation", "cutout")
    assert [penalty.name for penalty in experiment.discriminator.all_penalties] == ["r1"]


@pytest.mark.parametrize(
    ("width", "height", "on_gpu", "side"),
    [
        (8, 8, False, 16),
        (28, 28, False, 28),
        (31, 40, False, 16),
        (40, 33, False, 32),
        (500, 300, False, 64),
        (500, 300, True, 128),
        (100, 400, True, 64),
    ],
)
def test_the_size_is_a_power_of_two_that_the_images_fill(
    tmp_path: Path, width: int, height: int, on_gpu: bool, side: int
) -> None:
    """Of their smaller sides; 28 for those of MNIST, 16 at least, and at most what the device can train."""
    assert complete(tmp_path, on_gpu=on_gpu, one=((width, height), "RGB")).size == (side, side)


def test_the_smallest_folder_sets_the_size(tmp_path: Path) -> None:
    """No domain is enlarged, whatever the others are like."""
    assert complete(tmp_path, a=SQUARE, b=((32, 32), "RGB"), c=SQUARE).size == (32, 32)


def test_square_images_are_not_cropped(tmp_path: Path) -> None:
    """A choice without effect is not made."""
    assert complete(tmp_path, one=SQUARE).domains[0].crop is None


def test_many_images_are_only_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From so many training images on the discriminator does not learn them by heart."""
    monkeypatch.setattr("training.data.choices.FEW", 10)
    assert complete(tmp_path, one=SQUARE).discriminator.augmentations == ("flip",)


def test_every_modern_size_can_be_named() -> None:
    """The field takes the sizes that there are architectures of."""
    sides = get_args(get_args(get_type_hints(Experiment)["pixels"])[0])
    assert sides == SIDES


NAMED = [
    ("pixels = 32", "size", (32, 32)),
    ("steps = 7", "steps", 7),
    ("batch_size = 9", "batch_size", 9),
    ("warmdown = 0.0", "warmdown", 0.0),
    ('data_license = "mine"', "data_license", "mine"),
    ('name = "other"', "name", "other"),
    ("discriminator.augmentations = []", "discriminator.augmentations", ()),
    ('discriminator.penalty = "none"', "discriminator.penalty", "none"),
    ("discriminator.penalty_every = 4", "discriminator.penalty_every", 4),
    ("generator.width = 0.25", "generator.width", 0.25),
    ("generator.shared_layers = 1", "generator.shared_layers", 1),
    ("generator.learning_rate = 0.1", "generator.learning_rate", 0.1),
    ('discriminator.initialisation = "xavier"', "discriminator.initialisation", "xavier"),
]


@pytest.mark.parametrize(("text", "field", "value"), NAMED)
def test_what_is_named_holds(tmp_path: Path, text: str, field: str, value: Any) -> None:
    """Every choice is overridden by its field, and the others are still made."""
    experiment: Any = complete(tmp_path, text, one=SQUARE)
    assert experiment.generator.table.startswith("modern_")
    for name in field.split("."):
        experiment = getattr(experiment, name)
    assert experiment == value


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("2023", "2024", ["images_2023", "images_2024"]),
        ("horses/train", "zebras/train", ["horses_train", "zebras_train"]),
        ("\u65e5", "Day & Night", ["images", "day_night"]),
        ("\u65e5/\u6708", "\u65e5/\u706b", ["images_0", "images_1"]),
        ("x/a/train", "y/a/train", ["x_a_train", "y_a_train"]),
        ("summer/train", "winter/snow", ["summer_train", "snow"]),
        ("x" * 70, "y", ["x" * 57, "y"]),
    ],
)
def test_folders_name_domains(tmp_path: Path, first: str, second: str, names: list[str]) -> None:
    """By letters, digits and underscores, a letter first; folders of one name by those around them, too."""
    folders: dict[str, Any] = {first: SQUARE, second: SQUARE}
    assert [domain.name for domain in complete(tmp_path, **folders).domains] == names


@pytest.mark.parametrize("pixels", ["48", '"32"', "64.0", "true", "[16]", "nan"])
def test_a_size_that_no_architecture_has_is_an_error(tmp_path: Path, pixels: str) -> None:
    """The message has what is allowed; of other types, too."""
    with pytest.raises(ConfigError, match=r"pixels = .+: allowed are 16, 28, 32, 64, 128, 256, or name a table"):
        complete(tmp_path, f"pixels = {pixels}", one=SQUARE)


@pytest.mark.parametrize("text", ['generator = "modern_64"', "generator = 5", "discriminator = []"])
def test_a_network_that_is_no_table_is_an_error(tmp_path: Path, text: str) -> None:
    """It is named, and nothing is made of it."""
    with pytest.raises(ConfigError, match=text.partition(" ")[0]) as error:
        complete(tmp_path, text, one=SQUARE)
    assert "Field required" not in str(error.value)  # what else is missing is chosen


def test_domains_alone_are_required(tmp_path: Path) -> None:
    """A recipe without any is not told to say what is chosen for it."""
    with pytest.raises(ConfigError, match=r"My pictures.toml: domains: Field required$"):
        complete(tmp_path, "steps = 6")


def test_a_named_architecture_leaves_nothing_to_choose(tmp_path: Path) -> None:
    """The recipe is then taken as it is, and all that is missing is an error."""
    with pytest.raises(ConfigError, match="data_license: Field required"):
        complete(tmp_path, 'generator.table = "photo_64"', one=SQUARE)


def test_a_size_that_the_architecture_lacks_is_an_error(tmp_path: Path) -> None:
    """The message names both, and the remedy."""
    write_pictures(tmp_path / "a", (64, 64), "RGB")
    file = tmp_path / "recipe.toml"
    file.write_text(
        'name = "x"\ndata_license = "x"\npixels = 32\ngenerator.table = "photo_64"\n'
        f'discriminator.table = "photo_64"\n[[domains]]\nname = "a"\nsource = "{tmp_path / "a"}"\n'
    )
    with pytest.raises(ConfigError, match=r"pixels = 32: generator.table = 'photo_64' is for \(64, 64\)"):
        load_experiment(file, Choices(on_gpu=False))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    """The error tells the domain and every file."""
    write_pictures(tmp_path / "one", (64, 64), "RGB")
    for number in (1, 2):
        (tmp_path / "one" / f"{number}.jpg").write_bytes(b"no picture")
    file = tmp_path / "recipe.toml"
    file.write_text(f'[[domains]]\nsource = "{tmp_path / "one"}"\n')
    with pytest.raises(
        DataError, match=r"one/1\.jpg of .*one' cannot be read.* nor can 1 others: .*one/2\.jpg; mend or remove them"
    ):
        load_experiment(file, Choices(on_gpu=False))


def test_damaged_pictures_beyond_the_sample_are_named(tmp_path: Path) -> None:
    """Of many pictures some are inspected; if one is damaged all are, floats and whole numbers of 32 bits, too."""
    write_pictures(tmp_path / "photos" / "train", (8, 8), "L", count=200)
    damaged = [f"{number:03d}.tif" for number in range(0, 200, 7)]
    for number, name in enumerate(damaged):
        values = np.zeros((8, 8), np.float32 if number % 2 else np.int32)
        Image.fromarray(values).save(tmp_path / "photos" / "train" / name)
    write_pictures(tmp_path / "photos" / "test", (8, 8), "L")
    with pytest.raises(DataError, match=rf"{damaged[0]} of .* holds values of mode I.*; nor can 28 others: "):
        complete_source(tmp_path)


@pytest.mark.parametrize(("name", "advice"), [("Val", 'test_split = "Val" would take those'), ("cats", "")])
def test_other_pictures_to_measure_with_are_named(tmp_path: Path, name: str, advice: str) -> None:
    """Where some are held out although a folder of another split would do, the choice says so."""
    write_pictures(tmp_path / "photos" / "train", (64, 64), "RGB")
    write_pictures(tmp_path / "photos" / name, (64, 64), "RGB")
    made = "\n".join(complete_source(tmp_path))
    assert "it has no test images to measure with" in made
    assert ("would take those" in made) == bool(advice)
    assert advice in made


def complete_source(tmp_path: Path, **fields: Any) -> list[str]:
    """Return the choices for a recipe of one source, the folder `photos`."""
    choices = Choices(on_gpu=False)
    choices(tmp_path / "x.toml", {"domains": [{"source": str(tmp_path / "photos"), **fields}]})
    return choices.made


def test_a_test_split_that_is_named_holds(tmp_path: Path) -> None:
    """For a misspelt test_split nothing is held out: loading it reports the missing split."""
    write_pictures(tmp_path / "photos" / "train", (64, 64), "RGB")
    assert any("held_out" in line for line in complete_source(tmp_path))
    assert not any("held_out" in line for line in complete_source(tmp_path, test_split="tesst"))


def damage_encoding(photos: Path) -> None:
    """Write metadata of the test images as Excel does."""
    (photos / "test" / "metadata.csv").write_bytes("file_name,ort\n001.png,K\u00f6ln\n".encode("latin-1"))


def damage_where(photos: Path) -> None:
    """Write metadata by which no test image is of the kind that a training image is of."""
    for split, kind in (("train", "a"), ("test", "b")):
        (photos / split / "metadata.csv").write_text(f"file_name,kind\n001.png,{kind}\n")


def damage_archive(photos: Path) -> None:
    """Replace the test images by an archive that is cut off."""
    shutil.rmtree(photos / "test")
    (photos / "test.zip").write_bytes(b"PK")


def damage_link(photos: Path) -> None:
    """Replace the test images by a link to nothing."""
    shutil.rmtree(photos / "test")
    (photos / "test").symlink_to("gone")


@pytest.mark.parametrize(
    ("damage", "fields", "message"),
    [
        (damage_encoding, {}, r"split 'test' .+test/metadata\.csv is not UTF-8"),
        (damage_where, {"where": {"kind": "a"}}, "where: kind = 'a', and .+ has 'b'"),
        (damage_archive, {}, r"test\.zip cannot be unpacked"),
        (damage_link, {}, r"there is no folder 'test'; \['test'\] in .+ are links to nothing"),
    ],
)
def test_a_test_split_that_cannot_be_read_is_not_replaced(
    tmp_path: Path, damage: Callable[[Path], None], fields: dict[str, Any], message: str
) -> None:
    """Its error is shown, with the domain; held_out is for a source without test images."""
    write(tmp_path / "photos" / "train", 1, 2)
    write(tmp_path / "photos" / "test", 1, 2)
    damage(tmp_path / "photos")
    with pytest.raises(DataError, match=f"domain 'photos', images to measure with: .*{message}"):
        complete_source(tmp_path, **fields)


def test_the_error_of_training_images_comes_first(tmp_path: Path) -> None:
    """An error of both splits is reported for the training images."""
    write(tmp_path / "photos" / "train", 1)
    write(tmp_path / "photos" / "test", 1)
    with pytest.raises(DataError, match=r"^image_column 'img' is not among"):
        complete_source(tmp_path, image_column="img")


@pytest.mark.parametrize("layout", ["flat", "train", "dead link", "zip", "arrays", "table", "saved"])
def test_a_source_without_a_test_split_has_images_held_out(tmp_path: Path, layout: str) -> None:
    """However it is laid out."""
    photos, images = tmp_path / "photos", pictures(*range(20))
    photos.mkdir()
    if layout in ("flat", "dead link", "train", "zip"):
        write(photos / ("train" if layout in ("train", "zip") else ""), *range(20))
    if layout == "dead link":
        (photos / "dead.png").symlink_to("gone")
    elif layout == "zip":
        shutil.make_archive(str(photos / "train"), "zip", photos / "train")
        shutil.rmtree(photos / "train")
    elif layout == "arrays":
        np.savez(photos / "train.npz", image=np.zeros((20, *SIZE), np.uint8))
    elif layout == "table":
        write_split(photos, "train", {"image": images})
    elif layout == "saved":
        datasets.Dataset.from_dict({"image": images}).save_to_disk(photos)
    assert "photos.held_out = 0.1  (it has no test images to measure with)" in complete_source(tmp_path)


def test_the_choices_are_printed_and_kept_in_the_run(
    tmp_path: Path, run_verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its reason; the run has them as its recipe, so that resuming chooses nothing again."""
    text = "steps = 1\npixels = 16\nbatch_size = 2\ngenerator.width = 0.05\ndiscriminator.width = 0.05"
    complete(tmp_path, text, day=SQUARE, night=((20, 20), "L"))
    verb: ModuleType = train
    run_verb(verb, tmp_path / "My pictures.toml", "--runs", tmp_path / "runs", "--machine.accelerator", "cpu")
    printed = capsys.readouterr().out
    assert "chosen, as the recipe does not say:" in printed
    assert 'generator.table = "modern_16"  (no architecture is named, and images have 16)' in printed
    assert "night.channels = 1  (grey images)" in printed
    (run,) = (tmp_path / "runs").glob("*_my_pictures")
    kept = RunFolder.open(run).experiment()
    assert (kept.generator.table, kept.steps, kept.domains[1].channels) == ("modern_16", 1, 1)
    run_verb(verb, run, "--machine.accelerator", "cpu")
    assert "chosen" not in capsys.readouterr().out


def test_the_size_of_the_command_line_chooses_the_rest(
    tmp_path: Path, run_verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--pixels` counts as if the recipe said it: the architecture is chosen for it, not for the images' own."""
    complete(tmp_path, "generator.width = 0.05\ndiscriminator.width = 0.05", day=SQUARE, night=SQUARE)
    verb: ModuleType = train
    options = ("--pixels", "16", "--batch-size", "2", "--steps", "1", "--dry-run", "--machine.accelerator", "cpu")
    run_verb(verb, tmp_path / "My pictures.toml", *options)
    printed = capsys.readouterr().out
    assert 'generator.table = "modern_16"  (no architecture is named, and images have 16)' in printed
    assert "images, 16x16 RGB" in printed


def test_a_recipe_that_is_completed_is_a_base(tmp_path: Path) -> None:
    """Fields that the base leaves unset are chosen for the child recipe, and each choice is listed once."""
    complete(tmp_path, "steps = 7", day=SQUARE, night=SQUARE)
    child = tmp_path / "Smaller.toml"
    child.write_text('base = "My pictures.toml"\npixels = 32\n')
    choices = Choices(on_gpu=False)
    experiment = load_experiment(child, choices)
    assert (experiment.name, experiment.steps, experiment.generator.table) == ("smaller", 7, "modern_32")
    assert sum("generator.table" in line for line in choices.made) == 1
