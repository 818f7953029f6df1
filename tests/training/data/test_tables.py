"""Tables and metadata beside images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.data.folders import levels, load, write
from tests.training.data.picture_sets import SIZE
from training.config.data import DomainConfig
from training.data.dataset import ImageSet, load_split
from training.errors import DataError


def test_metadata_tell_columns(tmp_path: Path) -> None:
    """A metadata file gives columns by the path from its own folder, however it is encoded."""
    write(tmp_path / "train" / "a", 1, 2)
    write(tmp_path / "test", 3)
    text = "file_name,Smiling,person\r\na/001.png,true,07\r\na\\002.png,false,8\r\n"
    (tmp_path / "train" / "metadata.csv").write_text(text, encoding="utf-8-sig")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "test/003.png", "Smiling": true}\n')
    assert levels(tmp_path, where={"Smiling": True}) == [1]
    assert levels(tmp_path, where={"person": 8}) == [2]
    assert levels(tmp_path, "test", where={"Smiling": True}) == [3]


@pytest.mark.parametrize("name", ["images/001.png", "images\\001.png", "{folder}/images/001.png"])
def test_paths_of_a_table_are_from_its_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every working directory, and also where Windows wrote them; a missing image is named."""
    write(tmp_path / "table" / "images", 1)
    file = tmp_path / "table" / "train.csv"
    file.write_text(f"image,label\n{name.format(folder=tmp_path / 'table')},0\n", encoding="utf-8-sig")
    for place in (tmp_path, tmp_path / "table"):
        monkeypatch.chdir(place)
        assert levels(tmp_path / "table") == [1]
    file.write_text("image,label\nimages/gone.png,0\n")
    with pytest.raises(DataError, match=r"image .+table/images/gone\.png cannot be read: No such file"):
        load(tmp_path / "table")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_table_of_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    """The error has the file and what to do, not the library's words alone."""
    (tmp_path / "train.csv").write_text("image,name\na.png,café\n", encoding=encoding)
    with pytest.raises(DataError, match=r"train\.csv is not UTF-8 \(byte \d+\): save it as UTF-8$"):
        load(tmp_path)


def test_a_column_chooses_the_table_beside_a_folder(tmp_path: Path) -> None:
    """A folder of images has no columns but image and label, so that others are those of its table."""
    write(tmp_path / "train", 1, 2)
    (tmp_path / "train.csv").write_text("image,glasses\ntrain/001.png,true\ntrain/002.png,false\n")
    assert levels(tmp_path) == [1, 2]
    assert levels(tmp_path, where={"glasses": False}) == [2]


def noise(*shape: int) -> NDArray[np.uint8]:
    """Make bytes that differ from image to image."""
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def load_part(source: Path, split: str, **changes: Any) -> ImageSet:
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
    loaded = load_part(tmp_path, "train", channels=3 if channels == (3,) else 1)
    assert np.array_equal(loaded.images.movedim(1, -1).numpy(), train.reshape(6, *SIZE, -1))
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert load_part(tmp_path, "test").labels is None
    assert len(load_part(tmp_path, "train[:50%]+test").images) == 5
    with pytest.raises(DataError, match="configuration 'small': a folder of arrays has none"):
        load_part(tmp_path, "train", configuration="small")


def test_groups_of_ids_are_rows(tmp_path: Path) -> None:
    """Each id of a list has a group with its image; single values beside it are columns too."""
    images = noise(5, *SIZE, 1)
    write_hdf5(tmp_path, images)
    loaded = load_part(tmp_path, "id[1:]")
    assert np.array_equal(loaded.images[:, 0].numpy(), images[1:, ..., 0])
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [1, 0, 1, 0]
    assert len(load_part(tmp_path, "id", where={"label": 0}).images) == 3
    with h5py.File(tmp_path / "data.hy", "a") as file:
        for i in range(5):
            file[str(i)]["person"] = f"p{i // 2}"
    assert len(load_part(tmp_path, "id", where={"person": "p0"}).images) == 2
    (tmp_path / "few.txt").write_text("3 1")
    assert np.array_equal(load_part(tmp_path, "few").images[:, 0].numpy(), images[[3, 1], ..., 0])


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    """Each id has a size of its own, and all become the network's."""
    write_hdf5(tmp_path, [noise(20, 30), noise(40, 10, 3)], "data.hdf5")
    assert load_part(tmp_path, "id").images.shape == (2, 1, *SIZE)


@pytest.mark.parametrize(
    ("arrays", "split", "message"),
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
def test_errors_of_an_archive_are_named(tmp_path: Path, arrays: dict[str, Any], split: str, message: list[str]) -> None:
    """The error names the domain, the file and the array, and what it should have been."""
    np.savez(tmp_path / "train.npz", **arrays)
    for part in message:
        with pytest.raises(DataError, match=f"domain digit: .*{part}"):
            load_part(tmp_path, split)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """What was cut short is no archive of arrays, whatever its name says."""
    write_hdf5(tmp_path, noise(3, *SIZE), "data.h5")
    np.savez(tmp_path / "train.npz", image=noise(3, *SIZE))
    for name, split in (("data.h5", "id"), ("train.npz", "train")):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            load_part(tmp_path, split)


def test_ids_and_files_fit(tmp_path: Path) -> None:
    """An id that the file has not, a list without any, a second file and a missing list are named."""
    write_hdf5(tmp_path, noise(3, *SIZE))
    (tmp_path / "train.txt").write_text("0 7")
    with pytest.raises(DataError, match=r"data\.hy cannot be read: .+'7'"):
        load_part(tmp_path, "train")
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train\.txt names no image"):
        load_part(tmp_path, "train")
    alone = r"has to be the only HDF5 file, with lists of ids beside it"
    (tmp_path / "more.h5").touch()
    with pytest.raises(DataError, match=alone):
        load_part(tmp_path, "id")
    for file in ("more.h5", "id.txt", "train.txt"):
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=alone):
        load_part(tmp_path, "id")
