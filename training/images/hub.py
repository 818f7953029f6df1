"""Where a source lies: a folder, one below $COGAN_DATA, or a set of the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import datasets
import huggingface_hub

from training.config.domain import SourceConfig
from training.errors import DataError, describe_causes

DATA_ROOT = "COGAN_DATA"
HUB_NAME = re.compile(r"(?!.*(--|\.\.))\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
HUB_TIMEOUT = 10.0  # s

datasets.disable_progress_bars()
datasets.logging.set_verbosity(logging.CRITICAL)  # errors are raised, too
huggingface_hub.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def locate(source: str) -> str:
    """Return the folder of that path, the source's folder below $COGAN_DATA, or else its hub name."""
    root = os.environ.get(DATA_ROOT)
    path = Path(source).expanduser()
    folders = [path, *([Path(root, path.name)] if root and path.name else [])]
    return next((str(folder.resolve()) for folder in folders if folder.is_dir()), source)


def read_hub(config: SourceConfig, split: str) -> datasets.Dataset:
    """Read a split of a set of the hub, or of the library's cache of it where the hub is not reached."""
    root = os.environ.get(DATA_ROOT, "not set")
    path = Path(config.source).expanduser()
    sought = f"there is no folder {path.absolute()}, and ${DATA_ROOT} is {root}"
    if path.is_file():
        raise DataError(f"{path} is a file, and a source is a folder: unpack it, or name the folder around it")
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
