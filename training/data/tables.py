"""Tables in a folder, read by `datasets`, and packed splits."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from training.config.data import SourceConfig
from training.data.folders import ALIASES, SPLIT_NAMES, Splits, meant
from training.data.listing import check_encoding, is_hidden, log_once, some
from training.data.preprocess import file_state, holds_images, image_suffixes
from training.errors import DataError, MissingSplitError, describe_causes

HDF5 = (".hdf5", ".h5", ".hy")
TEXT_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
DESCRIPTIONS = {"README.md", "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
SPLIT_WORDS = ALIASES | {"test": (*ALIASES["test"], "eval", "evaluation")}
SPLIT_PART = re.compile(  # of a table's path: Train, trainA, test-00000-of-00002, val2017
    rf"((?i:{SPLIT_NAMES}))([A-Z])?([-_. ]?\d+(-of-\d+)?)?"
)
PART_OF = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.[^/]+)")
TABLES = frozenset(
    """.parquet .arrow .csv .tsv .json .jsonl .ndjson .zip .tar .gz .tgz .bz2 .xz .zst .lz4
    .7z""".split()  # noqa: SIM905  # a line a suffix
)
PACKED = TABLES - TEXT_TABLES - {".parquet", ".arrow"}
FORMATS = {".tsv": "csv", ".jsonl": "json", ".ndjson": "json"}  # as the library calls them, if not as their suffix


def array_splits(folder: Path) -> Splits:
    """Return the splits of .npz files and of one HDF5 file with lists of ids. Raises DataError if it is not so."""
    files = sorted(folder.iterdir())
    splits: Splits = {}
    if hdf5 := [file for file in files if file.suffix.lower() in HDF5]:
        lists = [file for file in files if file.suffix.lower() == ".txt"]
        if len(hdf5) > 1 or not lists:
            raise DataError(f"{hdf5[0]} has to be the only HDF5 file, with lists of ids beside it such as train.txt")
        splits = {ids.stem: partial(_read_hdf5, hdf5[0], ids) for ids in lists}
    return splits | {file.stem: partial(_read_npz, file) for file in files if file.suffix.lower() == ".npz"}


def arrays_named(folder: Path, split: str) -> bool:
    """Return whether a folder has arrays of that split, beside other files."""
    has_hdf5 = any(file.suffix.lower() in HDF5 for file in folder.iterdir())
    return (folder / f"{split}.npz").is_file() or (has_hdf5 and (folder / f"{split}.txt").is_file())


def split_names(split: str) -> list[str]:
    """Return the names in train, train[:50%] or train+test."""
    return [_parts_of(part)[0] for part in split.split("+")]


def _parts_of(part: str) -> tuple[str, str]:
    name, bracket, rest = part.strip().partition("[")
    return name.strip(), bracket + rest


def read_splits(splits: Splits, split: str) -> datasets.Dataset:
    """Return the rows of a split: train, train[:50%] or train+test. Raises DataError, naming the file."""
    if split in splits:  # whatever its name means
        return splits[split]()
    if unknown := set(split_names(split)) - splits.keys():
        raise MissingSplitError(f"there is no split {sorted(unknown)}; there are {sorted(splits)}")
    tables = []
    for name, rows in map(_parts_of, split.split("+")):
        table = splits[name]()
        try:
            (part,) = datasets.ReadInstruction.from_spec(f"rows{rows}").to_absolute({"rows": len(table)})
        except (AssertionError, ValueError) as error:
            allowed = f"as in {name}[:100], {name}[50%:] and {name}[10:20], without spaces"
            raise DataError(f"Unrecognized instruction {rows!r}: a part of a split is written {allowed}") from error
        first, last = part.from_ or 0, len(table) if part.to is None else part.to
        tables.append(table if not rows else table.select(range(first, last)))
    return tables[0] if len(tables) == 1 else datasets.concatenate_datasets(tables)


def _read_npz(file: Path) -> datasets.Dataset:
    try:
        with file.open("rb") as handle, np.load(handle) as arrays:
            columns = {name: _column(_rows(arrays[name], f"{file}: {name}"), f"{file}: {name}") for name in arrays}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return _table(columns, file)


def _read_hdf5(file: Path, ids: Path) -> datasets.Dataset:
    rows: dict[str, list[Any]] = {}
    try:
        check_encoding(ids)
        names = ids.read_text(encoding="utf-8-sig").split()
        if not names:
            raise DataError(f"{ids} names no image")
        with h5py.File(file) as groups:
            for name in names:
                members = _members(groups, name, file)
                if rows and members.keys() != rows.keys():
                    raise DataError(
                        f"{file}: {name!r} has {sorted(members)}, and ids before it {sorted(rows)}: give each the same"
                    )
                for member, value in members.items():
                    text = h5py.check_string_dtype(value.dtype) is not None
                    rows.setdefault(member, []).append(np.asarray((value.asstr() if text else value)[()]))
    except (OSError, KeyError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return _table({name: _column(values, f"{file}: {name}") for name, values in rows.items()}, file)


def _members(groups: h5py.File, name: str, file: Path) -> dict[str, h5py.Dataset]:
    """Return the arrays of an id's group by name. Raises DataError for what is none."""
    group = groups[name]
    if not isinstance(group, h5py.Group):
        raise DataError(f"{file}: {name!r} is an array, and an id names a group that has the array `image`")
    members = {member: group.get(member) for member in group}
    if wrong := [member for member, value in members.items() if not isinstance(value, h5py.Dataset)]:
        raise DataError(f"{file}: {wrong} of {name!r} are no arrays, or links to nothing")
    return members


def _rows(array: NDArray[Any], which: str) -> NDArray[Any]:
    """Return an array with a value for each row; bytes are text."""
    if not array.ndim:
        raise DataError(f"{which} is a single value, and an array has one for each image: leave it out")
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _table(columns: dict[str, list[Any]], file: Path) -> datasets.Dataset:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{file} has columns of different lengths: {lengths}")
    return datasets.Dataset.from_dict(columns)


def _column(rows: Iterable[NDArray[Any]], which: str) -> list[Any]:
    return [_encoded(row, f"{which} {i}") if row.ndim > 1 else row.tolist() for i, row in enumerate(rows)]


def _encoded(pixels: NDArray[Any], which: str) -> dict[str, object]:
    """Return an image as the library keeps those of files; PPM and PGM are its bytes as they are.

    Of 16 bits, grey keeps all and colour the upper 8, as images of files do.
    """
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise DataError(f"{which} is {pixels.dtype} {list(pixels.shape)}, not uint8 or uint16 [H, W] or [H, W, 1 or 3]")
    if pixels.shape[2:] == (3,) and pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels).save(file, "PPM")
    return {"bytes": file.getvalue(), "path": which}


def list_tables(root: Path) -> list[Path]:
    """Return the files that `datasets` may read: all but hidden files, images and notes.

    Beside images of the source itself those are tables that are called as splits are.
    """
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not (is_hidden(name) or name.startswith("__")))
        if Path(folder).resolve() in Path(folder).absolute().parents:  # a link to a folder around it
            folders.clear()
            continue
        visible = [Path(folder, name) for name in sorted(files) if not name.startswith((".", "__"))]
        if any(path.suffix.lower() in image_suffixes() for path in visible):  # notes on images are no tables
            named = [path for path in visible if Path(folder) == root and SPLIT_PART.fullmatch(path.stem)]
            visible = [path for path in visible if path in named or holds_pictures(path)]
        found += [path for path in visible if path.suffix.lower() in TABLES or path.name == "README.md"]
    return found if any(path.name not in DESCRIPTIONS for path in found) else []


def holds_pictures(file: Path) -> bool:
    """Return whether a table has images themselves, not their paths or features; so has one that cannot be read."""
    if file.suffix.lower() != ".parquet":
        return file.suffix.lower() == ".arrow"
    try:
        table = pyarrow.parquet.read_metadata(file)
    except (OSError, pyarrow.ArrowException):
        return True
    kinds = [table.schema.column(i) for i in range(table.num_columns * bool(table.num_row_groups))]
    binary = [
        i for i, kind in enumerate(kinds) if (kind.physical_type, kind.logical_type.type) == ("BYTE_ARRAY", "NONE")
    ]
    parts = [table.row_group(0).column(i) for i in binary]
    return any(part.statistics is None or part.statistics.null_count < part.num_values for part in parts)


def is_table_of(split: str, file: Path) -> bool:
    """Return whether a table is named after a split: train.csv, train-00000-of-00001.parquet."""
    return re.match(rf"{re.escape(split)}([-._ ]|$)", file.name, re.IGNORECASE) is not None


def has_configurations(root: Path) -> bool:
    """Return whether the README lists the files of configurations, as on the hub."""
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
    links = _links_folder(tables, root)
    for file, place in _places(root, tables, config.configuration is not None or has_configurations(root)).items():
        link = links / place
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(file)
    _report_missing_parts(tables)
    named = some([str(file.relative_to(root)) for file in tables])
    try:
        table = datasets.load_dataset(
            str(links), config.configuration, split=split, cache_dir=str(links.parent / "cache")
        )
    except Exception as error:
        _check_files(tables)
        packed = f"{packed}; read as a table: " if (packed := _packed(tables)) else ""
        cause = describe_causes(error).replace(str(links), str(root))
        if "corresponds to no data" in cause:  # as `datasets` says it
            cause = f"split {split!r} has no row"
        raise DataError(f"{packed}{cause}; its tables are {named}") from error
    _report_other_formats(tables, table.info.builder_name or "")
    if "__key__" in table.features and config.image_column not in table.features:  # WebDataset, or any tar of images
        raise DataError(f"{named} is an archive of columns {table.column_names}: unpack it, or choose image_column")
    feature = table.features.get(config.image_column)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return _with_paths(table, config.image_column, table[config.image_column][:], root, tables)
    if feature is not None and holds_images(table, config.image_column) and _names_all(table, config.image_column):
        cells = table.cast_column(config.image_column, datasets.Image(decode=False))[config.image_column][:]
        return _with_paths(table, config.image_column, [cell and cell["path"] for cell in cells], root, tables)
    return table


def _names_all(table: datasets.Dataset, column: str) -> bool:
    """Return whether no image of a column has bytes, and some have a path."""
    cells = table.data.column(column)
    parts = [pyarrow.compute.struct_field(cells, part) for part in ("bytes", "path")]
    kept, named = (len(cells) - part.null_count for part in parts)
    return not kept and named > 0


def _places(root: Path, tables: Sequence[Path], described: bool) -> dict[Path, Path]:
    """Return where to link each table, so that the library finds the splits, in any case.

    If every table names its split (Train.csv, testA.parquet, Train/0.csv), each has its own. Otherwise, or if a
    README says which files there are, the library decides, of names in lower case unless they collide.
    """
    if described:
        return {file: file.relative_to(root) for file in tables}
    places = {file: file.relative_to(root) for file in tables if file.name in DESCRIPTIONS - {"README.md"}}
    data = [file for file in tables if file.name not in DESCRIPTIONS]
    splits: dict[str, list[Path]] = {}
    for file in data:
        splits.setdefault(_split_of(file.relative_to(root)), []).append(file)
    if "" not in splits:
        for name, files in splits.items():
            for number, file in enumerate(files):
                suffix = "".join(file.suffixes).lower()
                places[file] = Path("data", f"{name}-{number:05d}-of-{len(files):05d}{suffix}")
        return places
    for file in data:
        lowered = Path(str(file.relative_to(root)).lower())
        places[file] = file.relative_to(root) if lowered in places.values() else lowered
    return places


def _split_of(table: Path) -> str:
    """Return the split that a table's path names, by its first part that names one; empty if none does."""
    for part in (*table.parent.parts, table.name.partition(".")[0]):
        if match := SPLIT_PART.fullmatch(part):
            return meant(match[1], SPLIT_WORDS) + (match[2] or "")
    return ""


def _report_missing_parts(tables: Sequence[Path]) -> None:
    """Log which parts of tables called train-00000-of-00002 are missing, as after a download that was stopped."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for file in tables:
        if match := PART_OF.fullmatch(str(file)):
            found.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    for (name, count, suffix), numbers in found.items():
        if missing := sorted(set(range(int(count))) - numbers):
            names = some([f"{name}-{number:05d}-of-{count}{suffix}" for number in missing])
            log_once(f"of {int(count)} parts {len(missing)} are missing, and their images are not read: {names}")


def _report_other_formats(tables: Sequence[Path], read: str) -> None:
    """Log the tables that the library left out, as it reads one format: the csv beside a parquet of the same rows."""
    formats = {file: FORMATS.get(file.suffix.lower(), file.suffix.lower()[1:]) for file in tables}
    if read in formats.values():
        left = [file for file, kind in formats.items() if kind != read and file.name not in DESCRIPTIONS]
        if left:
            log_once(f"{read} is read, and not tables of other formats: {some([*map(str, left)])}")


def _check_files(tables: Sequence[Path]) -> None:
    """Raise DataError for a table that is empty, damaged, or text that is not UTF-8, naming it."""
    for file in tables:
        if not file.stat().st_size:
            raise DataError(f"{file} is empty: write or download it again")
        if file.suffix.lower() in TEXT_TABLES:
            check_encoding(file)
        elif file.suffix.lower() == ".parquet":
            try:
                pyarrow.parquet.read_metadata(file)
            except (OSError, pyarrow.ArrowException) as error:
                raise DataError(
                    f"{file} cannot be read: {describe_causes(error)} Write or download it again"
                ) from error


def _packed(tables: Sequence[Path]) -> str:
    """Return what to do about an archive that is not called as a split is; empty if there is none."""
    for file in tables:
        if file.suffix.lower() in PACKED and not SPLIT_PART.fullmatch(file.stem):
            return f"{file.name} is an archive: unpack it"
    return ""


def _with_paths(
    table: datasets.Dataset, column: str, names: list[str | None], root: Path, tables: Sequence[Path]
) -> datasets.Dataset:
    """Return a table whose relative paths of images are those from the folder of the table."""
    folders = {one.parent for one in tables}
    if address := next((name for name in names if name and "://" in name), None):
        if address.startswith("zip://"):
            raise DataError(_packed(tables) or f"{tables[0].name} is an archive: unpack it")
        remedy = "images are not fetched: download them, and write their paths"
        raise DataError(f"column {column!r} holds addresses such as {address!r:.80}, and {remedy}")
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
    """Return the file that a table names, also with a Windows path."""
    path = folder / (Path(name).expanduser() if name.startswith("~/") else name)
    if path.is_file() or "\\" not in name:
        return str(path)
    return str(folder / name.replace("\\", "/"))


def archives_of(root: Path, splits: Collection[str]) -> dict[str, Path]:
    """Return the archives of splits' images, in any case and by any of a split's names: train.zip, Training.zip."""
    archives = [path for path in sorted(root.iterdir()) if path.suffix.lower() == ".zip"]
    there = {meant(path.stem): path for path in archives} | {path.stem.casefold(): path for path in archives}
    return {name: there[name.casefold()] for name in splits if name.casefold() in there}


def unzip(archive: Path) -> Path:
    """Unpack an archive of images into the cache, whole or not at all, and return their folder."""
    folder = _links_folder([archive], archive).with_name("unpacked")
    if not folder.is_dir():
        aside = folder.with_name(f".{os.getpid()}.part")
        try:
            with zipfile.ZipFile(archive) as files:
                if repeated := [name for name, count in Counter(files.namelist()).items() if count > 1]:
                    log_once(f"{archive} has several files of one name, and the last of each counts: {some(repeated)}")
                files.extractall(aside)
            if not folder.is_dir():  # of another process meanwhile
                aside.rename(folder)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    visible = [folder]
    while len(visible) == 1 and visible[0].is_dir():  # the folder that was packed
        folder = visible[0]
        visible = [inner for inner in folder.iterdir() if not is_hidden(inner.name)]
    return folder


def _links_folder(tables: Sequence[Path], root: Path) -> Path:
    """Return a folder in the cache of `datasets` for a source as it is now: its own confuses folders of one name."""
    state: list[Any] = [os.fsencode(root)]
    state += [(os.fsencode(file), file_state(file)) for file in tables]
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE, digest, "files")
