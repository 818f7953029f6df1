"""Where images come from: rows of a source, as tables whose images are still encoded."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import huggingface_hub
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from training.config.domain import SourceConfig, Use
from training.errors import DataError, describe_causes
from training.images.array_files import array_splits, arrays_named, read_splits, split_names
from training.images.folders import ImageFolder, has_images, image_suffixes, is_hidden
from training.images.sharing import share_out

DATA_ROOT = "COGAN_DATA"
HUB_NAME = re.compile(r"(?!.*(--|\.\.))\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
HUB_TIMEOUT = 10.0  # s
ROWS_AT_ONCE = 1000
PAGES = "pages"  # of a file, in the info of its image
IMAGE_COLUMNS = {"image", "label"}  # of a folder of images
TEXT_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
DESCRIPTIONS = {"README.md", "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
TABLES = frozenset(
    """.parquet .arrow .csv .tsv .json .jsonl .ndjson .zip .tar .gz .tgz .bz2 .xz .zst .lz4
    .7z""".split()  # noqa: SIM905  # a line a suffix
)

datasets.disable_progress_bars()
datasets.logging.set_verbosity(logging.CRITICAL)  # errors are raised, too
huggingface_hub.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def open_rows(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return the rows to learn from, or to measure against, that have an image and the values asked for.

    Raises DataError, naming what of the source is missing and what there is.
    """
    return number_rows(config, use)[0]


def number_rows(config: SourceConfig, use: Use) -> tuple[datasets.Dataset, NDArray[np.int64]]:
    """Return the same rows, and the number of each in the split: one row has one number in all columns."""
    split = config.split_for(use)
    table = _read(config, use)
    if config.image_column not in table.column_names:
        raise DataError(
            f"image_column {config.image_column!r} is not among the columns {table.column_names} "
            f"of {config.source!r}"
        )
    try:
        table = table.cast_column(config.image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"image_column {config.image_column!r} of {config.source!r} holds "
            f"{table.features[config.image_column]}, not images"
        ) from error
    group_of_rows(table, config)
    counts = _rows_that_count(table, config, split)
    rows = np.flatnonzero(counts & _divide(table, config, use, counts))
    return table.select(rows), rows


def decode(cell: dict[str, Any]) -> Image.Image:
    """Return the image of a row, upright. Raises DataError, which leaves it to others to name the image."""
    Image.MAX_IMAGE_PIXELS = None  # a scan may have more than what Pillow takes for an attack
    try:
        with Image.open(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            image.load()
            upright = _upright(image)
            upright.info[PAGES] = pages
            return upright
    except Exception as error:  # each of Pillow's formats has errors of its own
        raise DataError(f"cannot be read: {describe_causes(error)}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Return an image as its EXIF data say it is to be held, if they can be read."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged data beside an image that is not
        return image
    upright.format = image.format
    return upright


def read_cells(table: datasets.Dataset, column: str) -> Iterator[list[dict[str, Any] | None]]:
    """Read a column of images, still encoded, in parts of some rows: one by one takes many times as long."""
    column_alone = table.select_columns(column)
    for first in range(0, len(table), ROWS_AT_ONCE):
        yield column_alone[first : first + ROWS_AT_ONCE][column]


def fingerprint(cell: dict[str, Any]) -> bytes:
    """Return a digest of a row's image as it is stored: the same file has the same, wherever it lies."""
    try:
        stored = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    except OSError as error:
        raise DataError(f"image {cell['path']} cannot be read: {error}") from error
    return hashlib.blake2b(stored, digest_size=16).digest()


def locate(source: str) -> str:
    """Return the folder of that path, the source's folder below $COGAN_DATA, or else its hub name."""
    root = os.environ.get(DATA_ROOT)
    path = Path(source).expanduser()
    folders = [path, *([Path(root, path.name)] if root and path.name else [])]
    return next((str(folder.resolve()) for folder in folders if folder.is_dir()), source)


def _read(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return all rows of a split."""
    split, place = config.split_for(use), locate(config.source)
    try:
        return _read_folder(Path(place), config, use) if Path(place).is_dir() else _read_hub(config, split)
    except Exception as error:  # each of the library's builders has errors of its own
        raise DataError(
            f"source {config.source!r}, split {split!r} cannot be loaded: {describe_causes(error)}"
            f"{_remedy(config, use)}"
        ) from error


def _remedy(config: SourceConfig, use: Use) -> str:
    """Say what to do where a source has nothing to measure against."""
    if use == "train" or config.held_out:
        return ""
    return "; without a split to measure against, held_out = 0.1 takes a tenth of the training images for it"


def _read_folder(root: Path, config: SourceConfig, use: Use) -> datasets.Dataset:
    """Read a split of a folder as what it holds: images, arrays, or tables that `datasets` reads."""
    split = config.split_for(use)
    names = split_names(split)
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return _read_saved(root, split)
    tables = _tables(root)
    if not (config.configuration or _has_configurations(root)):
        folder = ImageFolder(root)
        names = [split] if split in folder.folders else names
        named = any(_is_table_of(name, table) for name in names for table in tables)
        asked = config.needed_columns - IMAGE_COLUMNS
        found = any(folder.find(name) and folder.find(name) != root for name in names)
        if found and not (named and asked):
            other = [] if config.held_out or use == "test" else split_names(config.test_split)
            return read_splits(folder.splits(names, other), split)
        zipped = {name: root / f"{name}.zip" for name in names}
        if not found and all(file.is_file() for file in zipped.values()):
            return read_splits(
                {name: partial(ImageFolder(_unzip(file)).read_whole) for name, file in zipped.items()}, split
            )
        if any(arrays_named(root, name) for name in names):
            return read_splits(array_splits(root), split)
        if has_images(root) and not named:
            return read_splits(folder.splits(names, []), split)
    if splits := array_splits(root):
        if config.configuration:
            raise DataError(f"configuration {config.configuration!r}: a folder of arrays has none")
        return read_splits(splits, split)
    if not tables:
        raise DataError(f"folder {root} holds neither images nor tables nor arrays")
    return _read_tables(root, tables, config, split)


def _read_saved(root: Path, split: str) -> datasets.Dataset:
    """Read what `save_to_disk` wrote: splits, or one that is the training split."""
    saved = datasets.load_from_disk(str(root))
    tables = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    return read_splits({name: partial(lambda table: table, table) for name, table in tables.items()}, split)


def _read_tables(root: Path, tables: list[Path], config: SourceConfig, split: str) -> datasets.Dataset:
    """Read tables by `datasets`, from a folder of links to them: it takes [ and * in a path for patterns."""
    view = _view(tables)
    described = config.configuration is not None or _has_configurations(root)
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


def _unzip(archive: Path) -> Path:
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
    images = datasets.Dataset.from_dict(
        {column: cells}, datasets.Features({column: datasets.Image(decode=False)})
    )
    return datasets.concatenate_datasets([table.remove_columns(column), images], axis=1)


def _path_from(folder: Path, name: str) -> str:
    """Return the file that a table names, also where it was written on Windows."""
    path = folder / Path(name).expanduser()
    if path.is_file() or "\\" not in name:
        return str(path)
    return str(folder / name.replace("\\", "/"))


def _tables(root: Path) -> list[Path]:
    """Return the files that `datasets` may read: all but hidden files, images and notes."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        if Path(folder).resolve() in Path(folder).absolute().parents:  # a link to a folder around it
            folders.clear()
            continue
        visible = [Path(folder, name) for name in sorted(files) if not name.startswith((".", "__"))]
        if not any(
            path.suffix.lower() in image_suffixes() for path in visible
        ):  # notes on images are no tables
            found += [path for path in visible if path.suffix.lower() in TABLES or path.name == "README.md"]
    return found if any(path.name not in DESCRIPTIONS for path in found) else []


def _is_table_of(split: str, file: Path) -> bool:
    """Return whether a table is called after a split: train.csv, train-00000-of-00001.parquet."""
    return re.match(rf"{re.escape(split)}([-._ ]|$)", file.name, re.IGNORECASE) is not None


def _has_configurations(root: Path) -> bool:
    """Return whether a README of the hub's says which files each configuration has."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    front, *_ = text.removeprefix("---").partition("\n---")
    return text.startswith("---") and re.search(r"^configs:", front, re.MULTILINE) is not None


def _view(tables: Sequence[Path]) -> Path:
    """Return the folder of links to tables as they are now, in the cache of `datasets`.

    The library's own cache takes two folders of one name and with the same configurations for one.
    """
    state = [(os.fsencode(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in tables]
    digest = hashlib.blake2b(repr(state).encode(), digest_size=8).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE, digest, "files")


def _read_hub(config: SourceConfig, split: str) -> datasets.Dataset:
    """Read a split of a set of the hub, or of the library's cache of it where the hub is not reached."""
    root = os.environ.get(DATA_ROOT, "not set")
    path = Path(config.source).expanduser()
    sought = f"there is no folder {path.absolute()}, and ${DATA_ROOT} is {root}"
    if path.is_file():
        raise DataError(
            f"{path} is a file, and a source is a folder: unpack it, or name the folder around it"
        )
    if not HUB_NAME.fullmatch(config.source):
        raise DataError(f"{sought}; neither is it a name of the hub")
    if reason := _unreached(config.source):
        sought += f", and the hub is not reached ({reason})"
    try:
        with _offline(bool(reason)):
            return datasets.load_dataset(config.source, config.configuration, split=split)
    except Exception as error:
        raise DataError(sought if reason else f"{sought}: {describe_causes(error)}") from None


@cache
def _unreached(name: str) -> str:
    """Ask the hub once for a set, and return why there was no answer; nothing if there was one."""
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:  # an answer: load_dataset reports what it says
        return ""
    except Exception as error:  # of the network, whose classes differ between versions of the library
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Have `datasets` ask its cache alone, and not the hub five times more."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _rows_that_count(table: datasets.Dataset, config: SourceConfig, split: str) -> NDArray[np.bool_]:
    counts = np.array(table.data.column(config.image_column).is_valid())
    for column, wanted in config.where.items():
        if column not in table.column_names:
            raise DataError(
                f"where asks for {column!r}, which is not among the columns {table.column_names} "
                f"of {config.source!r}"
            )
        values = _called(table, column)
        fits = np.array([_is_same(value, wanted) for value in values], bool)
        if not fits.any():
            found = ", ".join(sorted(set(map(repr, values)))[:10])
            raise DataError(f"where asks for {column} = {wanted!r}, and {config.source!r} has {found}")
        counts &= fits
    if not counts.any():
        raise DataError(f"split {split!r} of {config.source!r} has no image that counts")
    return counts


def _called(table: datasets.Dataset, column: str) -> list[Any]:
    """Return the values of a column, classes by what they are called."""
    feature, values = table.features[column], table[column][:]
    if not isinstance(feature, datasets.ClassLabel):
        return list(values)
    return [None if value is None or value < 0 else Class(value, feature.names[value]) for value in values]


class Class(NamedTuple):
    """A class of a source: its number, and what it is called."""

    number: int
    name: str

    def __repr__(self) -> str:
        return repr(self.name)


def _is_same(value: object, wanted: bool | int | str) -> bool:
    """Compare names as they are called, and numbers by their value: "07" is 7, and yes and no are not."""
    if isinstance(value, Class):
        numbered = isinstance(wanted, int) and not value.name.lstrip("-").isdecimal()
        return value.number == wanted if numbered else _is_same(value.name, wanted)
    if isinstance(value, bool | None) or isinstance(wanted, bool):
        return value == wanted  # of attributes 1 and 0 are yes and no
    try:
        return float(str(value)) == float(wanted)
    except ValueError:
        return str(value).strip() == str(wanted).strip()


def _divide(
    table: datasets.Dataset, config: SourceConfig, use: Use, counts: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which rows are held out, or all but these; every row if none are.

    Whole rows are held out, and all rows of a group together, so that no counterpart of an image that is
    measured against is learned from.
    """
    if config.held_out is None:
        return np.ones(len(table), bool)
    groups = group_of_rows(table, config)
    names = list(dict.fromkeys(groups))
    order = share_out(len(names), shares=1, seed=0)[0]
    apart = {names[i] for i in order[: round(config.held_out * len(names))]}
    held_out = np.array([group in apart for group in groups], bool)
    measured, learned = int((held_out & counts).sum()), int((~held_out & counts).sum())
    if not measured or not learned:
        raise DataError(
            f"held_out = {config.held_out} of the {counts.sum()} images in split {config.train_split!r} of "
            f"{config.source!r} leaves {measured} to measure against and {learned} to learn from"
        )
    return held_out if use == "test" else ~held_out


def group_of_rows(table: datasets.Dataset, config: SourceConfig) -> list[Hashable]:
    """Return what each row is grouped by: the value in a column, or the row itself. Raises DataError."""
    if config.group is None:
        return list(range(len(table)))
    if config.group not in table.column_names:
        raise DataError(
            f"group {config.group!r} is not among the columns {table.column_names} of {config.source!r}"
        )
    values = table[config.group][:]
    return [("row", row) if value is None else str(value) for row, value in enumerate(values)]
