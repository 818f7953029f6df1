"""Images in arrays: .npz and HDF5."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.data.picture_sets import SIZE
from training.config.data import DomainConfig
from training.data.dataset import ImageSet, load_split
from training.errors import DataError


def noise(*shape: int) -> NDArray[np.uint8]:
    """Make bytes that differ from image to image."""
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def load(source: Path, split: str, **changes: Any) -> ImageSet:
    """Load a split of a source as a domain that says no more than is asked."""
    return load_split(DomainConfig("digit", source=str(source), train_split=split, **changes), "train", SIZE)


def write_hdf5(folder: Path, images: Iterable[NDArray[Any]], name: str = "data.hy") -> None:
    """Write what DCGAN-Tensorflow reads: a group for each id with its image, and the list of all ids."""
    with h5py.File(folder / name, "w") as file, (folder / "id.txt").open("w") as ids:
        for i, image in enumerate(images):
            file.create_group(str(i))["image"] = image
            file[str(i)]["label"] = i % 2
            ids.write(f"{i}\n")


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_arrays_of_a_file_are_columns(tmp_path: Path, channels: tuple[int, ...]) -> None:
    """Images of an .npz, grey or RGB, keep each byte; a one-dimensional array beside them holds labels."""
    train, test = noise(6, *SIZE, *channels), noise(2, *SIZE, *channels)
    np.savez(tmp_path / "train.npz", image=train, label=np.array([0, 1, 2] * 2))
    np.savez(tmp_path / "test.npz", image=test)
    loaded = load(tmp_path, "train", channels=3 if channels == (3,) else 1)
    assert np.array_equal(loaded.images.movedim(1, -1).numpy(), train.reshape(6, *SIZE, -1))
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load(tmp_path, "test").labels is None
    assert len(load(tmp_path, "train[:50%]+test").images) == 5
    with pytest.raises(DataError, match="configuration 'small': a folder of arrays has none"):
        load(tmp_path, "train", configuration="small")


def test_groups_of_ids_are_rows(tmp_path: Path) -> None:
    """Each id of a list has a group with its image; single values beside it are columns too."""
    images = noise(5, *SIZE, 1)
    write_hdf5(tmp_path, images)
    loaded = load(tmp_path, "id[1:]")
    assert np.array_equal(loaded.images[:, 0].numpy(), images[1:, ..., 0])
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [1, 0, 1, 0]
    assert len(load(tmp_path, "id", where={"label": 0}).images) == 3
    with h5py.File(tmp_path / "data.hy", "a") as file:
        for i in range(5):
            file[str(i)]["person"] = f"p{i // 2}"
    assert len(load(tmp_path, "id", where={"person": "p0"}).images) == 2
    (tmp_path / "few.txt").write_text("3 1")
    assert np.array_equal(load(tmp_path, "few").images[:, 0].numpy(), images[[3, 1], ..., 0])


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    """Each id has a size of its own, and all become the network's."""
    write_hdf5(tmp_path, [noise(20, 30), noise(40, 10, 3)], "data.hdf5")
    assert load(tmp_path, "id").images.shape == (2, 1, *SIZE)


@pytest.mark.parametrize(
    ("arrays", "split", "said"),
    [
        ({"image": np.zeros((2, *SIZE))}, "train", [r"train.npz: image 0 is float64 \[28, 28\], not uint8"]),
        ({"image": noise(2, *SIZE, 4)}, "train", [r"uint8 \[28, 28, 4\], not uint8 or uint16 \[H, W\]"]),
        ({"image": noise(2, *SIZE), "label": np.arange(3)}, "train", ["different lengths", "'label': 3"]),
        ({"image": np.array([None, {}])}, "train", ["train.npz cannot be read", "allow_pickle"]),
        ({"photo": noise(2, *SIZE)}, "train", [r"image_column 'image' is not among the columns \['photo'\]"]),
        ({"image": noise(2, *SIZE)}, "valid", [r"no split \['valid'\]; there are \['train'\]"]),
        ({"image": noise(2, *SIZE)}, "train[:x]", ["'train\\[:x\\]' cannot be loaded"]),
        ({}, "train", [r"image_column 'image' is not among the columns \[\]"]),
        ({"image": noise(2)}, "train", ["'image' .+ holds .+, not images"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_an_archive_is_said(
    tmp_path: Path, arrays: dict[str, Any], split: str, said: list[str]
) -> None:
    """The error names the domain, the file and the array, and what it should have been."""
    np.savez(tmp_path / "train.npz", **arrays)
    for part in said:
        with pytest.raises(DataError, match=f"domain digit: .*{part}"):
            load(tmp_path, split)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """What was cut short is no archive of arrays, whatever its name says."""
    write_hdf5(tmp_path, noise(3, *SIZE), "data.h5")
    np.savez(tmp_path / "train.npz", image=noise(3, *SIZE))
    for name, split in (("data.h5", "id"), ("train.npz", "train")):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            load(tmp_path, split)


def test_ids_and_files_fit(tmp_path: Path) -> None:
    """An id that the file has not, a list without any, a second file and a missing list are named."""
    write_hdf5(tmp_path, noise(3, *SIZE))
    (tmp_path / "train.txt").write_text("0 7")
    with pytest.raises(DataError, match=r"data\.hy cannot be read: .+'7'"):
        load(tmp_path, "train")
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train\.txt names no image"):
        load(tmp_path, "train")
    alone = r"has to be the only HDF5 file, with lists of ids beside it"
    (tmp_path / "more.h5").touch()
    with pytest.raises(DataError, match=alone):
        load(tmp_path, "id")
    for file in ("more.h5", "id.txt", "train.txt"):
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=alone):
        load(tmp_path, "id")
