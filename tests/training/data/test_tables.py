"""Tables and metadata beside images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.folders import levels, load, write
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
