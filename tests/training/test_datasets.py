"""Image sets from folders, and what is said when they cannot be had."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from training.config import Experiment, parse_experiment
from training.datasets import ImageSet, load_split, load_training_sets, locate, share_out
from training.domain_config import DomainConfig
from training.errors import DataError

SIZE = (28, 28)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Return a folder laid out like the hub's: 21 grey images, each of one level of its own, in parquet."""
    images = [Image.fromarray(np.full(SIZE, 10 * i, np.uint8)) for i in range(21)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int64"), "word": datasets.Value("string")}
    )
    columns = {"image": images, "label": list(range(21)), "word": ["one", "two", "three"] * 7}
    for split in ("train", "test"):
        file = tmp_path / "numbered" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    return tmp_path / "numbered"


def coupled(*domains: dict[str, Any], seed: int = 0) -> Experiment:
    """Make an experiment of domains."""
    return parse_experiment({"name": "a", "data_license": "none", "domains": domains, "seed": seed})


def levels(images: ImageSet) -> list[int]:
    """Return the level of each image, which tells it from all others."""
    return [int(level) for level in images.images[:, 0, 0, 0]]


def test_domains_of_one_split_share_no_image(numbered: Path) -> None:
    """Every image goes to exactly one domain, in equal shares, whatever transforms and names hide it."""
    path = str(numbered)
    experiment = coupled(
        {"name": "digit", "source": path},
        {"name": "negative", "source": f"{path}/../numbered", "transform": "negative"},
        {"name": "twin", "source": path},
    )
    sets = load_training_sets(experiment)
    shown = [levels(sets["digit"]), [255 - level for level in levels(sets["negative"])], levels(sets["twin"])]
    assert [len(part) for part in shown] == [7, 7, 7]
    assert sorted(itertools.chain(*shown)) == [10 * i for i in range(21)]


def test_shares_follow_from_the_seed(numbered: Path) -> None:
    """The same seed shares out alike, another one differently; labels go with their images."""
    domains = [{"name": "digit", "source": str(numbered)}, {"name": "twin", "source": str(numbered)}]
    first, again, other = (load_training_sets(coupled(*domains, seed=seed))["digit"] for seed in (3, 3, 4))
    assert levels(first) == levels(again) != levels(other)
    assert first.labels is not None
    assert [10 * int(label) for label in first.labels] == levels(first)


def test_shares_are_disjoint_and_equal() -> None:
    """Any count is split into shares that differ by one at most and make up the whole."""
    for count, shares in ((10, 1), (10, 3), (7, 5), (60_000, 2)):
        parts = share_out(count, shares, seed=1)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_different_sources_are_not_shared_out(numbered: Path, digits_folder: Path) -> None:
    """A domain alone on its source and split has all images of it."""
    experiment = coupled(
        {"name": "digit", "source": str(digits_folder)},
        {"name": "level", "source": str(numbered)},
        {"name": "other", "source": str(numbered), "train_split": "test"},
    )
    sets = load_training_sets(experiment)
    assert {name: len(loaded.images) for name, loaded in sets.items()} == {
        "digit": 300,
        "level": 21,
        "other": 21,
    }


def test_an_image_folder_has_its_folders_as_labels(digits_folder: Path) -> None:
    """<split>/<label>/<image> gives uint8 [N, C, H, W] and int64 labels."""
    loaded = load_split(DomainConfig("digit", str(digits_folder)), "test", SIZE)
    assert loaded.images.shape == (100, 1, 28, 28)
    assert loaded.images.dtype == torch.uint8
    assert loaded.images.float().std() > 50
    assert loaded.labels is not None
    assert loaded.labels.unique().tolist() == list(range(10))


def test_images_are_converted_and_resized(tmp_path: Path) -> None:
    """Colour becomes grey or grey colour, and any size the network's."""
    (tmp_path / "train").mkdir()
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "train" / "half_red.png")
    grey, colour = (
        load_split(DomainConfig("digit", str(tmp_path), channels=channels), "train", SIZE).images
        for channels in (1, 3)
    )
    assert grey.shape == (1, 1, 28, 28)
    assert colour.shape == (1, 3, 28, 28)
    assert grey[0, 0, 14, [3, 24]].tolist() == [76, 0]  # ITU-R 601: 0.299 red
    assert colour[0, :, 14, 3].tolist() == [255, 0, 0]


def test_a_margin_is_added_before_images_are_resized(tmp_path: Path) -> None:
    """USPS's 16x16 pixels with 3 more on each side are 22 at 28: ink ends where the margin begins."""
    (tmp_path / "train").mkdir()
    Image.new("L", (16, 16), 255).save(tmp_path / "train" / "white.png")
    plain, margined = (
        load_split(DomainConfig("digit", str(tmp_path), margin=margin), "train", SIZE).images[0, 0]
        for margin in (0, 3)
    )
    assert plain.float().mean() == 255
    inked = (margined > 127).nonzero()
    first, last = 28 * 3 / 22, 28 * 19 / 22  # 3.8 and 24.2
    assert inked.min(0).values.tolist() == [round(first)] * 2
    assert inked.max(0).values.tolist() == [round(last) - 1] * 2


def test_a_folder_below_the_data_root_comes_first(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub name's last part is looked for in $COGAN_DATA, and a name found nowhere is the hub's."""
    monkeypatch.setenv("COGAN_DATA", str(digits_folder.parent))
    assert locate("someone/digits") == str(digits_folder)
    assert locate("someone/else") == "someone/else"
    monkeypatch.setenv("COGAN_DATA", str(tmp_path))
    assert locate("someone/digits") == "someone/digits"


@pytest.mark.parametrize(
    ("changes", "split", "said"),
    [
        ({"source": "no/such"}, "train", ["domain digit", "'no/such'", "COGAN_DATA"]),
        ({}, "validation", ["'validation'", "['train', 'test']"]),
        ({"image_column": "img"}, "train", ["'img'", "['image', 'label', 'word']"]),
        ({"image_column": "label"}, "train", ["'label'", "int64", "not images"]),
        ({"label_column": "word"}, "train", ["'word'", "string", "not whole numbers"]),
    ],
)
def test_a_wrong_source_split_or_column_is_named(
    numbered: Path, changes: dict[str, Any], split: str, said: list[str]
) -> None:
    """The error names the domain, what was asked for and, where it can, what there is."""
    domain = DomainConfig(**({"name": "digit", "source": str(numbered)} | changes))
    with pytest.raises(DataError) as caught:
        load_split(domain, split, SIZE)
    assert all(part in str(caught.value) for part in said)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves the file open
@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda _: b"no image"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Among many images, the error says which one cannot be read."""
    (tmp_path / "train").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    for name in ("good", "bad"):
        Image.fromarray(pixels).save(tmp_path / "train" / f"{name}.png")
    bad = tmp_path / "train" / "bad.png"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError, match=r"image \S+bad\.png of .+ cannot be read"):
        load_split(DomainConfig("digit", str(tmp_path)), "train", SIZE)


def test_fewer_images_than_domains_are_refused(tmp_path: Path) -> None:
    """A domain that would be left without an image stops the run before it begins."""
    (tmp_path / "train").mkdir()
    Image.new("L", SIZE).save(tmp_path / "train" / "only.png")
    domains = [{"name": name, "source": str(tmp_path)} for name in ("digit", "twin")]
    with pytest.raises(DataError, match=r"domain twin: .+ has 1 images for"):
        load_training_sets(coupled(*domains))
