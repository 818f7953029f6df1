"""Sources: folders, files and hub sets, as tables whose images are still encoded."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import huggingface_hub
import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from training.config.data import SourceConfig, Use
from training.data.folders import ImageFolder, Splits
from training.data.listing import as_called, has_images, list_images, log_once, reasons, some
from training.data.tables import (
    archives_of,
    array_splits,
    arrays_named,
    has_configurations,
    holds_pictures,
    is_table_of,
    list_tables,
    read_saved,
    read_splits,
    read_tables,
    split_names,
    unzip,
)
from training.errors import DataError, MissingSplitError, describe_causes

DATA_ROOT = "COGAN_DATA"
HUB_NAME = re.compile(r"(?!.*(--|\.\.))\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
HUB_TIMEOUT = 10.0  # s
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
MIN_IMAGES = 2  # to measure against: of fewer no spread can be computed

datasets.disable_progress_bars()
datasets.logging.set_verbosity(logging.CRITICAL)  # errors are raised, too
huggingface_hub.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
IMAGE_COLUMNS = {"image", "label"}  # of a folder of images


def locate(source: str) -> str:
    """Return the folder of that path, for a name also that below $COGAN_DATA by its last part, or else the source."""
    root = os.environ.get(DATA_ROOT)
    path = _path(source)
    folders = [path, *([Path(root, path.name)] if root and (HUB_NAME.fullmatch(source) or path.name == source) else [])]
    is_folder = os.path.isdir  # Path's raises an error for a name that is too long
    return next((str(folder.resolve()) for folder in folders if is_folder(folder)), source)


def _path(source: str) -> Path:
    return Path(os.path.expanduser(source))  # noqa: PTH111  # Path's raises an error for ~name of no user


def read_hub(config: SourceConfig, split: str) -> datasets.Dataset:
    """Read a split of a set of the hub, or of the library's cache if the hub cannot be reached."""
    root = os.environ.get(DATA_ROOT, "not set")
    path = _path(config.source)
    sought = f"there is no folder {path.absolute()}, and ${DATA_ROOT} is {root}"
    if path.is_file():
        raise DataError(f"{path} is a file, and a source is a folder: unpack it, or name the folder around it")
    if not HUB_NAME.fullmatch(config.source):
        raise DataError(f"{sought}; neither is it a name of the hub, and a path is read only as it is named")
    if reason := _unreached(config.source):
        sought += f", and the hub is not reached ({reason})"
    try:
        with _offline(bool(reason)):
            return datasets.load_dataset(config.source, config.configuration, split=split)
    except Exception as error:
        raise DataError(sought if reason else f"{sought}: {describe_causes(error)}") from None


@cache
def _unreached(name: str) -> str:
    """Request a set from the hub once, and return why that failed; empty if it worked."""
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:  # a response, which load_dataset reports
        return ""
    except Exception as error:  # of the network, whose classes differ between versions of the library
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Let `datasets` use its cache alone, and not retry the hub five times."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def share_out(count: int, shares: int, seed: int) -> list[NDArray[np.int64]]:
    """Split 0 .. count - 1 at random into disjoint, equal shares."""
    order = np.random.default_rng(seed).permutation(count)
    return np.array_split(order, shares)


def share_out_images(wanted: Mapping[str, Sequence[Hashable]], seed: int) -> dict[str, list[int]]:
    """Give each image to one of the domains that want it, and return the rows that each domain gets.

    `wanted` has a fingerprint for each row of a domain. Images that the same domains want are shared out equally among
    them, at random, each with all of its rows. The rows come in an order whose every beginning is a fair sample.
    """
    rows: dict[Hashable, dict[str, list[int]]] = {}
    for name, fingerprints in wanted.items():
        for row, image in enumerate(fingerprints):
            rows.setdefault(image, {}).setdefault(name, []).append(row)
    alike: dict[tuple[str, ...], list[dict[str, list[int]]]] = {}
    for places in rows.values():
        alike.setdefault(tuple(places), []).append(places)
    given: dict[str, list[tuple[float, int]]] = {name: [] for name in wanted}
    for names, images in alike.items():
        for name, share in zip(names, share_out(len(images), len(names), seed), strict=True):
            for i, image in enumerate(share):
                given[name] += [(i / len(share), row) for row in images[image][name]]
    return {name: [row for _, row in sorted(ranked, key=itemgetter(0))] for name, ranked in given.items()}


def join_rows(wanted: Mapping[str, Sequence[Sequence[Hashable]]]) -> dict[str, list[Hashable]]:
    """Return the group of each row of each domain: rows that share a key, such as an image, are of one group."""
    parents: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = key = parents.setdefault(parent, parent)
        return key

    for rows in wanted.values():
        for first, *others in rows:
            for key in others:
                parents[root(key)] = root(first)
    return {name: [root(keys[0]) for keys in rows] for name, rows in wanted.items()}


def open_rows(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return the rows for one use that have an image and the values of `where`. Raises DataError if there are none."""
    return number_rows(config, use)[0]


def number_rows(config: SourceConfig, use: Use) -> tuple[datasets.Dataset, NDArray[np.int64]]:
    """Return the same rows, and the number of each in the split: one row has one number in all columns."""
    split = config.split_for(use)
    table = _read(config, use)
    if config.image_column not in table.column_names:
        apart = any(mark in name for name in table.column_names for mark in ";\t")
        remedy = "separate columns by commas" if apart else "image_column names one of them"
        raise DataError(
            f"image_column {config.image_column!r} is not among the columns {table.column_names} of "
            f"{config.source!r}: {remedy}"
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


def _read(config: SourceConfig, use: Use) -> datasets.Dataset:
    """Return all rows of a split."""
    split, place = config.split_for(use), locate(config.source)
    try:
        return _read_folder(Path(place), config, use) if Path(place).is_dir() else read_hub(config, split)
    except Exception as error:  # each of the library's builders has errors of its own
        message = f"source {config.source!r}, split {split!r} cannot be loaded: {describe_causes(error)}"
        if use == "test" and not config.held_out:
            message += (
                "; without a split to measure against, held_out = 0.1 takes a tenth of the training images for it"
            )
        missing = isinstance(error, MissingSplitError) or "Unknown split" in message  # as `datasets` says it
        raise (MissingSplitError if missing else DataError)(message) from error


def _read_folder(root: Path, config: SourceConfig, use: Use) -> datasets.Dataset:
    """Read a split of a folder of images, of arrays, or of tables that `datasets` reads."""
    split = config.split_for(use)
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return read_saved(root, split)
    tables = list_tables(root)
    described = config.configuration or has_configurations(root)
    if not described and (splits := _image_splits(root, tables, config, use)):
        return read_splits(splits, split)
    if splits := array_splits(root):
        if config.configuration:
            raise DataError(f"configuration {config.configuration!r}: a folder of arrays has none")
        return read_splits(splits, split)
    if not tables:
        found = some([path.name for path in sorted(root.iterdir())]) or "nothing"
        unread = reasons(list_images(root))
        raise DataError(f"folder {root} holds neither images nor tables nor arrays but {found}{unread}")
    if any(map(holds_pictures, tables)) and (loose := list_images(root).images):
        log_once(f"{root}: its tables are read, and not {len(loose)} images beside them: {some([*map(str, loose)])}")
    return read_tables(root, tables, config, split)


def _image_splits(root: Path, tables: list[Path], config: SourceConfig, use: Use) -> Splits:
    """Return the splits of images in folders and archives, or of arrays; none if the tables are to be read."""
    split = config.split_for(use)
    both = split_names(config.train_split) + ([] if config.held_out else split_names(config.test_split))
    folder = ImageFolder(root, both)
    names = [split] if split in folder.folders else split_names(split)
    named = any(is_table_of(name, table) for name in names for table in tables)
    places = [place for name in names if (place := folder.find(name))]
    found = any(place != root for place in places)
    pictured = [table for table in tables if holds_pictures(table)] if has_images(root) else []
    inside = [table for table in pictured if any(map(table.is_relative_to, places or [root]))]
    if found and not (inside or (named and config.needed_columns - IMAGE_COLUMNS)):
        if unread := [table for table in tables if table in pictured or any(is_table_of(one, table) for one in both)]:
            log_once(f"{root}: images in folders are read, and not tables: {some([*map(str, unread)])}")
        other = [] if config.held_out or use == "test" else split_names(config.test_split)
        return folder.splits(names, other)
    zipped = {} if found else archives_of(root, [*names, *both])
    if zipped and all(name in zipped for name in names):
        packed = {name: _packed_folder(archive, name) for name, archive in zipped.items()}
        return {name: ImageFolder(packed[name], others=[*packed.values()]).read for name in names}
    if any(arrays_named(root, name) for name in names):
        return array_splits(root)
    return folder.splits(names, []) if has_images(root) and not (named or inside) else {}


def _packed_folder(archive: Path, name: str) -> Path:
    """Return the folder of a split's images in an archive: that of its name, if there are folders of splits."""
    folder = ImageFolder(unzip(archive))
    found = folder.root if folder.is_one_split else folder.find(name)
    if found is None:
        raise DataError(f"{archive} has folders {folder.split_folders}, and none of split {name!r}: unpack it")
    if others := [one for one, place in folder.folders.items() if not folder.is_one_split and place != found]:
        log_once(f"{archive}: images in folder {found.name} are read, and not folders {sorted(others)}")
    return found


def _rows_that_count(table: datasets.Dataset, config: SourceConfig, split: str) -> NDArray[np.bool_]:
    cells = table.data.column(config.image_column)
    counts = np.zeros(len(table), bool)
    for part in ("bytes", "path"):
        counts |= np.array(pyarrow.compute.is_valid(pyarrow.compute.struct_field(cells, part)))
    for column, wanted in config.where.items():
        if column not in table.column_names:
            raise DataError(
                f"where names {column!r}, which is not among the columns {table.column_names} of {config.source!r}"
            )
        values = _values(table, column)
        fits = np.array([_is_same(value, wanted) for value in values], bool)
        if not fits.any():
            found = ", ".join(sorted(set(map(repr, values)))[:10])
            raise DataError(f"where: {column} = {wanted!r}, and {config.source!r} has {found}")
        counts &= fits
    if not counts.any():
        raise DataError(f"split {split!r} of {config.source!r} has no image that counts")
    return counts


def _values(table: datasets.Dataset, column: str) -> list[Any]:
    """Return the values of a column, with the names of classes."""
    feature, values = table.features[column], table[column][:]
    if not isinstance(feature, datasets.ClassLabel):
        return list(values)
    return [None if value is None or value < 0 else Class(value, feature.names[value]) for value in values]


class Class(NamedTuple):
    """A class of a source: its number and its name."""

    number: int
    name: str

    def __repr__(self) -> str:
        return repr(self.name)


def _is_same(value: object, wanted: bool | int | str) -> bool:
    """Compare text with text, and numbers by value: "07" is 7; booleans equal only booleans.

    Only digits are a number: 1_0 and 1e5 are text, and of long numbers every digit counts.
    """
    if isinstance(value, Class):
        if isinstance(wanted, bool):
            return value.name.strip().casefold() in (("true", "yes", "1") if wanted else ("false", "no", "0"))
        numbered = isinstance(wanted, int) and not value.name.lstrip("-").isdecimal()
        return value.number == wanted if numbered else _is_same(value.name, wanted)
    if isinstance(value, bool | None) or isinstance(wanted, bool):
        return value == wanted  # of attributes 1 and 0 are yes and no
    own, other = as_called(str(value)), as_called(str(wanted))
    if NUMBER.fullmatch(own) and NUMBER.fullmatch(other):
        return Decimal(own) == Decimal(other)
    return own == other


def _divide(table: datasets.Dataset, config: SourceConfig, use: Use, counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of rows for one use: the held-out ones, or the others; all if none are held out.

    All rows of a group go together, so that no counterpart of an image that is measured against is learned from.
    """
    if config.held_out is None:
        return np.ones(len(table), bool)
    groups = group_of_rows(table, config)
    names = list(dict.fromkeys(groups))
    order = share_out(len(names), shares=1, seed=0)[0]
    held = {names[i] for i in order[: round(config.held_out * len(names))]}
    held_out = np.array([group in held for group in groups], bool)
    measured, learned = int((held_out & counts).sum()), int((~held_out & counts).sum())
    if not measured or not learned:
        raise DataError(
            f"held_out = {config.held_out} of the {counts.sum()} images in split {config.train_split!r} of "
            f"{config.source!r} leaves {measured} to measure against and {learned} to learn from; "
            "set another held_out, a share of all rows, or add images"
        )
    return held_out if use == "test" else ~held_out


def group_of_rows(table: datasets.Dataset, config: SourceConfig) -> list[Hashable]:
    """Return what each row is grouped by: the value in a column, or the row itself. Raises DataError."""
    if config.group is None:
        return list(range(len(table)))
    if config.group not in table.column_names:
        raise DataError(f"group {config.group!r} is not among the columns {table.column_names} of {config.source!r}")
    values = table[config.group][:]
    return [_group_called(value) or ("row", row) for row, value in enumerate(values)]


def _group_called(value: object) -> str:
    """Return a group as text, numbers by value (with gaps, 1 is read as 1.0); empty for a gap."""
    if value is None or value != value:
        return ""
    called = as_called(str(value))
    return format(Decimal(called).normalize(), "f") if NUMBER.fullmatch(called) else str(value)
