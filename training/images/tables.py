"""Tables in a folder, read by `datasets`, and packed splits."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import datasets

from training.config.domain import SourceConfig
from training.errors import DataError, describe_causes
from training.images.array_files import read_splits
from training.images.listing import image_suffixes, is_hidden

TEXT_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
DESCRIPTIONS = {"README.md", "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
TABLES = frozenset(
    """.parquet .arrow .csv .tsv .json .jsonl .ndjson .zip .tar .gz .tgz .bz2 .xz .zst .lz4
    .7z""".split()  # noqa: SIM905  # a line a suffix
)


def list_tables(root: Path) -> list[Path]:
    """Return the files that `datasets` may read: all but hidden files, images and notes."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        if Path(folder).resolve() in Path(folder).absolute().parents:  # a link to a folder around it
            folders.clear()
            continue
        visible = [Path(folder, name) for name in sorted(files) if not name.startswith((".", "__"))]
        if not any(path.suffix.lower() in image_suffixes() for path in visible):  # notes on images are no tables
            found += [path for path in visible if path.suffix.lower() in TABLES or path.name == "README.md"]
    return found if any(path.name not in DESCRIPTIONS for path in found) else []


def is_table_of(split: str, file: Path) -> bool:
    """Return whether a table is called after a split: train.csv, train-00000-of-00001.parquet."""
    return re.match(rf"{re.escape(split)}([-._ ]|$)", file.name, re.IGNORECASE) is not None


def has_configurations(root: Path) -> bool:
    """Return whether a README of the hub's says which files each configuration has."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    front, *_ = text.removeprefix("---").partition("\n---")
    return text.startswith("---") and re.search(r"^configs:", front, re.MULTILINE) is not None


def read_saved(root: Path, split: str) -> datasets.Dataset:
    """Read what `save_to_disk` wrote: splits, or one that is the training split."""
    saved = datasets.load_from_disk(str(root))
    tables = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    return read_splits({name: partial(lambda table: table, table) for name, table in tables.items()}, split)


def read_tables(root: Path, tables: list[Path], config: SourceConfig, split: str) -> datasets.Dataset:
    """Read tables by `datasets`, from a folder of links to them: it takes [ and * in a path for patterns."""
    view = _view(tables)
    described = config.configuration is not None or has_configurations(root)
    for file in tables:
        if file.name == "README.md" and not described:
            continue
        link = view / file.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(file)
    try:
        table = datasets.load_dataset(
            str(view), config.configuration, split=split, cache_dir=str(view.parent / "cache")
        )
    except Exception as error:
        _check_encoding(tables)
        raise DataError(describe_causes(error).replace(str(view), str(root))) from error
    feature = table.features.get(config.image_column)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return _with_paths(table, config.image_column, root, {one.parent for one in tables})
    return table


def _check_encoding(tables: Sequence[Path]) -> None:
    """Raise DataError for a table of text that is not UTF-8, naming it."""
    for file in tables:
        if file.suffix.lower() in TEXT_TABLES:
            try:
                file.read_bytes().decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def _with_paths(table: datasets.Dataset, column: str, root: Path, folders: set[Path]) -> datasets.Dataset:
    """Return a table whose relative paths of images are those from the folder of the table."""
    names = table[column][:]
    if len(folders) > 1 and any(name and not Path(name).is_absolute() for name in names):
        raise DataError(
            f"tables lie in several folders of {root}, and paths in column {column!r} are relative: put the "
            "tables into one folder, or write absolute paths"
        )
    folder = next(iter(folders), root)
    cells = [None if name is None else {"bytes": None, "path": _path_from(folder, name)} for name in names]
    images = datasets.Dataset.from_dict({column: cells}, datasets.Features({column: datasets.Image(decode=False)}))
    return datasets.concatenate_datasets([table.remove_columns(column), images], axis=1)


def _path_from(folder: Path, name: str) -> str:
    """Return the file that a table names, also where it was written on Windows."""
    path = folder / Path(name).expanduser()
    if path.is_file() or "\\" not in name:
        return str(path)
    return str(folder / name.replace("\\", "/"))


def unzip(archive: Path) -> Path:
    """Unpack an archive of images into the cache, whole or not at all, and return their folder."""
    folder = _view([archive]).with_name("unpacked")
    if not folder.is_dir():
        aside = folder.with_name(f".{os.getpid()}.part")
        try:
            with zipfile.ZipFile(archive) as files:
                files.extractall(aside)
            if not folder.is_dir():  # of another process meanwhile
                aside.rename(folder)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    visible = [inner for inner in folder.iterdir() if not is_hidden(inner.name)]
    while len(visible) == 1 and visible[0].is_dir():  # the folder that was packed
        folder = visible[0]
        visible = [inner for inner in folder.iterdir() if not is_hidden(inner.name)]
    return folder


def _view(tables: Sequence[Path]) -> Path:
    """Return the folder of links to tables as they are now, in the cache of `datasets`.

    The library's own cache takes two folders of one name and with the same configurations for one.
    """
    state = [(os.fsencode(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in tables]
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE, digest, "files")
