"""Weights that others trained, by the name of a file or of a repository of the hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor

from training.errors import RunError
from training.files import expecting
from training.images.hub import locate

Weights = dict[str, Tensor]
HUB_FILE = "model.safetensors"
_read_pickled = partial(torch.load, map_location="cpu", weights_only=True)
READERS: dict[str, Callable[[Path], Weights]] = {
    ".pt": _read_pickled,
    ".pth": _read_pickled,
    ".safetensors": load_file,
}


def find_weights(name: str) -> Path:
    """Return the file of that name or, where it does not end as a file's, what the hub has under it.

    A folder of the name's last part below $COGAN_DATA comes before the hub. Raises RunError where there is
    no such file.
    """
    place = Path(locate(name))
    if Path(name).suffix in READERS or place.is_dir():
        file = place / HUB_FILE if place.is_dir() else place
        if not file.is_file():
            raise RunError(f"{file} is missing: name a file that exists, or a repository of the hub")
        return file
    try:
        return Path(hf_hub_download(name, HUB_FILE))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{name!r}: no file (of {', '.join(READERS)}), and from the hub {HUB_FILE} does not come: {error}"
        ) from error


def read_weights(file: Path) -> Weights:
    """Read weights onto the CPU, by their names. Raises RunError where the file holds something else."""
    with expecting("weights", file):
        return READERS[file.suffix](file)
