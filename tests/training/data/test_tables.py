"""Tables and metadata beside images."""

from __future__ import annotations

import gc
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from tests.training.data.folders import levels, load, swap, write
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


def test_metadata_name_files_through_any_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row is of the file that its path leads to, and paths that lead to none are reported, wherever they point."""
    source = write(tmp_path / "photos" / "train", 1, 2).parent
    write(source / "test", 3)
    (tmp_path / "link").symlink_to(source)
    rows = (f"{tmp_path}/link/train/001.png,a", "test/003.png,b", "002.png,c", "/home/old/002.png,d")
    (source / "metadata.csv").write_text("\n".join(["file_name,x", *rows]))
    assert levels(source, where={"x": "a"}) == [1]
    assert levels(source, "test", where={"x": "b"}) == [3]
    lost = f"paths start at the folder of the metadata file: /home/old/002.png, {source}/002.png"
    assert caplog.messages == [
        f"{source / split}: metadata name 2 files that are no images there; {lost}" for split in ("train", "test")
    ]


@pytest.mark.parametrize("name", ["images/001.png", "images\\001.png", "{folder}/images/001.png", "~001.png"])
def test_paths_of_a_table_are_from_its_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every working directory, and also where Windows wrote them; a missing image is named."""
    write(tmp_path / "table" / "images", 1)
    write(tmp_path / "table", 1).joinpath("001.png").rename(tmp_path / "table" / "~001.png")
    file = tmp_path / "table" / "train.csv"
    file.write_text(f"image,label\n{name.format(folder=tmp_path / 'table')},0\n", encoding="utf-8-sig")
    for place in (tmp_path, tmp_path / "table"):
        monkeypatch.chdir(place)
        assert levels(tmp_path / "table") == [1]
    file.write_text("image,label\nimages/gone.png,0\n")
    with pytest.raises(DataError, match=r"image .+table/images/gone\.png cannot be read: No such file"):
        load(tmp_path / "table")


def test_images_of_a_parquet_table_may_be_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their paths, too, are from its folder, from every working directory."""
    for name, level in (("mine", 1), ("other", 90)):
        write(tmp_path / name / "pics", level)
        (tmp_path / name / "pics" / f"{level:03d}.png").rename(tmp_path / name / "pics" / "a.png")
    cells = pyarrow.array([{"bytes": None, "path": "pics/a.png"}, {"bytes": None, "path": None}])
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "mine" / "train.parquet")
    for place in (tmp_path / "other", tmp_path):
        monkeypatch.chdir(place)
        assert levels(tmp_path / "mine") == [1]


def test_tables_of_splits_beside_their_images_are_read(tmp_path: Path) -> None:
    """As Kaggle lays sets out: what test.csv lists is not learned from, and labels are not lost."""
    write(tmp_path, *range(1, 7))
    for split, numbers in (("train", (1, 2, 3, 4)), ("test", (5, 6))):
        lines = [f"{number:03d}.png,{number % 2}" for number in numbers]
        (tmp_path / f"{split}.csv").write_text("\n".join(["image,label", *lines]))
    assert (levels(tmp_path), levels(tmp_path, "test")) == ([1, 2, 3, 4], [5, 6])
    labels = load(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [1, 0, 1, 0]


def test_addresses_are_not_fetched(tmp_path: Path) -> None:
    """The error says so, where a path of that name would only be missing."""
    (tmp_path / "train.csv").write_text("image\nhttps://example.com/a.png\n")
    with pytest.raises(DataError, match=r"'https://example\.com/a\.png', and images are not fetched: download them"):
        load(tmp_path)


def test_a_part_that_is_written_wrongly_has_its_form(tmp_path: Path) -> None:
    """The error shows how a part of a split is written."""
    write(tmp_path / "train", 1)
    with pytest.raises(DataError, match=r"Unrecognized instruction '\[ :1 \]': .+ as in train\[:100\]"):
        load(tmp_path, train_split="train[ :1 ]")


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    """Without the words of a decoder about its memory."""
    write(tmp_path / "train", 1)
    (tmp_path / "train" / "002.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"002\.png of .+ cannot be read: it is empty, or in no format of images"):
        load(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_table_of_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    """The error has the file and what to do, not the library's words alone."""
    (tmp_path / "train.csv").write_text("image,name\na.png,café\n", encoding=encoding)
    with pytest.raises(DataError, match=r"train\.csv is not UTF-8 \(byte \d+\): save it as UTF-8$"):
        load(tmp_path)


def write_parquet(file: Path, *levels: int) -> Path:
    """Write a table of images of one level each."""
    cells = []
    for level in levels:
        encoded = io.BytesIO()
        Image.fromarray(np.full((*SIZE, 3), level, np.uint8)).save(encoded, "PNG")
        cells.append({"bytes": encoded.getvalue(), "path": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"image": cells}), file)
    return file


@pytest.mark.parametrize(
    ("train", "test", "splits"),
    [
        ("Train.parquet", "TEST.Parquet", {}),
        ("Training/0.parquet", "Testing/0.parquet", {}),
        ("Train_data.parquet", "Test_data.parquet", {}),
        ("trainA.parquet", "testA.parquet", {"train_split": "trainA", "test_split": "testA"}),
        ("crash test/train.parquet", "crash test/test.parquet", {}),
        ("data/train-00000-of-00001.parquet", "data/Val-00000-of-00001.parquet", {"test_split": "validation"}),
    ],
)
def test_the_name_of_a_table_is_its_split_in_any_case(
    tmp_path: Path, train: str, test: str, splits: dict[str, str]
) -> None:
    """No test image is learned from, whatever the names' case and the folders around them."""
    write_parquet(tmp_path / train, 1, 2)
    write_parquet(tmp_path / test, 3)
    assert (levels(tmp_path, **splits), levels(tmp_path, "test", **splits)) == ([1, 2], [3])


@pytest.mark.parametrize(
    ("tables", "picture"),
    [
        (("images.parquet",), "preview.png"),
        (("train/0.parquet", "test/0.parquet"), "train/preview.png"),
        (("train/0.parquet", "test/0.parquet"), "assets/logo.png"),
        (("data/train-00000-of-00001.parquet",), "logo.png"),
    ],
)
def test_images_beside_tables_of_images_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tables: tuple[str, ...], picture: str
) -> None:
    """The tables are read, wherever the images lie; tables of features are none, nor is what was deleted."""
    for level, name in enumerate(tables, 1):
        write_parquet(tmp_path / name, level)
    write_parquet(tmp_path / "@Recycle" / "train.parquet", 90)
    write((tmp_path / picture).parent, 9).joinpath("009.png").rename(tmp_path / picture)
    assert levels(tmp_path) == [1]
    assert caplog.messages == [f"{tmp_path}: its tables are read, and not 1 images beside them: {tmp_path / picture}"]
    if picture == "preview.png":
        parquet.write_table(pyarrow.table({"feature": [0.5]}), tmp_path / "images.parquet")
        assert levels(tmp_path) == [9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;label\na.png;1\n", r"\['image;label'\].*: separate columns by commas$"),
        ("image\tlabel\na.png\t1\n", "separate columns by commas$"),
        ("file,label\na.png,1\n", "image_column names one of them$"),
        ("image,label\n", "split 'train' has no row; its tables are train.csv"),
    ],
)
def test_a_table_that_is_read_otherwise_gets_a_remedy(tmp_path: Path, text: str, message: str) -> None:
    """Semicolons, tabs, another header, or nothing below it."""
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "folders", "message"),
    [
        ("photos.zip", ("",), "photos.zip is an archive: unpack it$"),
        ("photos.zip", ("cat", "dog"), "photos.zip is an archive: unpack it; read as a table: "),
        ("photos.tar", ("",), r"photos.tar is an archive of columns .+: unpack it, or choose image_column"),
        ("photos.7z", (), "photos.7z is an archive: unpack it; read as a table: "),
        ("photos.rar", (), r"nor arrays but photos.rar; left out 1 \(archives: unpack them\)"),
        ("photos.pdf", (), "holds neither images nor tables nor arrays but photos.pdf$"),
    ],
)
def test_an_archive_that_is_no_split_is_named(
    tmp_path: Path, name: str, folders: tuple[str, ...], message: str
) -> None:
    """The error says what is there and what to do with it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"x")
    for folder in folders:
        write(tmp_path / "packed" / folder, 1)
    if folders:
        shutil.make_archive(str(source / "photos"), name[-3:], tmp_path / "packed")
    with pytest.raises(DataError, match=message):
        load(source)


def test_a_folder_of_tables_and_the_one_around_it_are_two_sources(tmp_path: Path) -> None:
    """Rows read from one folder are not taken for those of the other."""
    write_parquet(tmp_path / "faces" / "train.parquet", 1, 2)
    assert levels(tmp_path) == levels(tmp_path / "faces") == [1, 2]


def test_tables_that_swap_their_names_are_read_anew(tmp_path: Path) -> None:
    """Their paths, sizes and times are as before."""
    write(tmp_path / "images", 1, 2)
    for split, name in (("train", "001"), ("test", "002")):
        (tmp_path / f"{split}.csv").write_text(f"image\nimages/{name}.png\n")
        os.utime(tmp_path / f"{split}.csv", (0, 0))
    assert levels(tmp_path) == [1]
    swap(tmp_path / "train.csv", tmp_path / "test.csv")
    assert (levels(tmp_path), levels(tmp_path, "test")) == ([2], [1])


def test_tables_of_another_format_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One format is read of the same split: what it leaves out is said, with its path."""
    write(tmp_path / "images", 1, 2)
    (tmp_path / "train.csv").write_text("image\nimages/001.png\n")
    assert levels(tmp_path) == [1]
    assert "other formats" not in caplog.text
    write_parquet(tmp_path / "train.parquet", 3)
    write_parquet(tmp_path / "train_2.parquet", 4)
    assert levels(tmp_path) == [3, 4]
    assert f"parquet is read, and not tables of other formats: {tmp_path / 'train.csv'}" in caplog.text


def test_missing_parts_of_tables_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A download that was stopped is not taken for the whole set without a word."""
    write_parquet(tmp_path / "data" / "train-00000-of-00003.parquet", 1)
    assert levels(tmp_path) == [1]
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        "of 3 parts 2 are missing, and their images are not read"
    ]
    assert "train-00002-of-00003.parquet" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # `datasets` leaves the file open
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.parquet", b"PAR1 and then nothing", r"train\.parquet cannot be read: .+ again"),
        ("train.csv", b"", r"train\.csv is empty: write or download it again"),
        ("train.jsonl", b'{"image": "a.png"\n', r"JSON parse error: .+; its tables are train\.jsonl"),
        ("train.csv", "image,name\na.png,b\n".encode("utf-16-le"), r"train\.csv is not UTF-8 \(byte 1\): save it as"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The error has the file, what is wrong with it and, where that is known, the remedy."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    gc.collect()


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("file_name,name\n001.png,caf\u00e9\n", "latin-1", r"metadata\.csv is not UTF-8 \(byte 26\): save it"),
        ("file_name,name\n001.png,a\n", "utf-16-le", r"metadata\.csv is not UTF-8 \(byte 1\): save it as UTF-8"),
    ],
)
def test_metadata_of_another_encoding_are_named(tmp_path: Path, text: str, encoding: str, message: str) -> None:
    """No name is read as bytes, which no condition would find."""
    write(tmp_path / "train", 1)
    (tmp_path / "train" / "metadata.csv").write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_metadata_that_are_not_used_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the columns where `file_name` is missing, and the images that a file describes twice."""
    write(tmp_path / "train", 1, 2)
    (tmp_path / "train" / "metadata.csv").write_text("file_name;x\n001.png;a\n")
    (tmp_path / "train" / "metadata.jsonl").write_text(
        '{"file_name": "001.png", "x": "a"}\n{"file_name": "001.png", "x": "b"}\n{"file_name": "002.png", "x": "b"}\n'
    )
    assert levels(tmp_path, where={"x": "b"}) == [1, 2]
    assert "has no column 'file_name' but ['file_name;x'], and is not read" in caplog.text
    assert "metadata say different things of 1 images, the last counts: " in caplog.text


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (12345678901234567, [1]),
        ("12345678901234568", [2]),
        ("0e12", [3]),
        ("1_0", [4]),
        (10, [5]),
        ("010.0", [5]),
        ("nan", [6]),
        ("cafe\u0301", [7]),
    ],
)
def test_only_what_is_called_the_same_counts(tmp_path: Path, wanted: int | str, expected: list[int]) -> None:
    """Numbers by every digit, and names that Python would take for numbers by their letters."""
    write(tmp_path / "train", *range(1, 8))
    names = ("12345678901234567", "12345678901234568", "0e12", "1_0", "10", "nan", "caf\u00e9")
    rows = "".join(f"00{i}.png,{name}\n" for i, name in enumerate(names, 1))
    (tmp_path / "train" / "metadata.csv").write_text(f"file_name,x\n{rows}")
    assert levels(tmp_path, where={"x": wanted}) == expected
    (tmp_path / "train" / "metadata.csv").write_text(f"file_name,x\n001.png,{names[0]}\n002.png,{names[1]}\n")
    assert levels(tmp_path, where={"x": int(names[1])}) == [2]


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


def test_what_arrays_of_other_machines_hold_is_read(tmp_path: Path) -> None:
    """Values of either byte order, and names as bytes."""
    pixels = np.full((2, *SIZE), 257 * 7)
    np.savez(tmp_path / "train.npz", image=pixels.astype(">u2"), name=np.array([b"one", "zw\u00f6lf".encode()]))
    assert levels(tmp_path, where={"name": "zw\u00f6lf"}) == [7]
    np.savez(tmp_path / "train.npz", image=pixels.astype(np.uint8), total=np.array(7))
    with pytest.raises(DataError, match=r"train\.npz: total is a single value, .+: leave it out"):
        load_part(tmp_path, "train")


def test_every_id_has_the_same_members(tmp_path: Path) -> None:
    """Values are of the image in their own group, and never of another one for a gap between."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        for name, members in {"a": ("image",), "b": ("label",), "c": ("image", "label"), "d": ()}.items():
            group = file.create_group(name)
            for member in members:
                group[member] = noise(*SIZE) if member == "image" else 1
        file["d"]["image"] = h5py.SoftLink("/nothing")
        file["e"] = noise(*SIZE)
    for ids, message in (
        ("a b c", r"'b' has \['label'\], and ids before it \['image'\]: give each the same"),
        ("d", r"\['image'\] of 'd' are no arrays, or links to nothing"),
        ("e", r"'e' is an array, and an id names a group"),
    ):
        (tmp_path / "train.txt").write_text(ids)
        with pytest.raises(DataError, match=message):
            load_part(tmp_path, "train")


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
