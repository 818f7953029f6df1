"""VGG19 as a feature network for the perceptual losses (Gatys et al. 2016, section 2).

Axes: B batch, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from training.data.sources import locate
from training.errors import RunError
from training.files import expecting
from training.networks.layers import build
from training.zoo import FEATURES

TABLE = FEATURES["vgg19"]
FEATURE_LAYERS = (0, 2, 4, 8, 12, 13)  # rows: the first convolution of each block, and the second of the last
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of what torchvision's weights learned from
Weights = dict[str, Tensor]
HUB_FILE = "model.safetensors"
_read_pickled = partial(torch.load, map_location="cpu", weights_only=True)
READERS: dict[str, Callable[[Path], Weights]] = {".pt": _read_pickled, ".pth": _read_pickled, ".safetensors": load_file}


class FeatureNetwork(nn.Module):
    """RGB images [B, 3, H, W] in [0, 1] -> features [B, C, H, W] of rows SEEN; 16 pixels or more."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        layers, _ = build(TABLE.layers, (3, *TABLE.size), width, {})
        self.rows = nn.ModuleList(nn.Sequential(*modules) for _, modules in layers.rows())
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features, from the style layers to the content layer."""
        values, seen = (images - self.mean) / self.deviation, []
        for number, row in enumerate(self.rows):
            values = row(values)
            if number in FEATURE_LAYERS:
                seen.append(values)
        return seen

    def of_range(self, image_range: tuple[float, float]) -> Callable[[Tensor], list[Tensor]]:
        """Return a differentiable function from grey or RGB images of that range to features."""
        low, high = image_range
        return lambda images: self(((images - low) / (high - low)).expand(-1, 3, -1, -1))


def load_feature_network(name: str) -> FeatureNetwork:
    """Read weights of VGG19, of a file or of the hub, called features.0.weight, features.0.bias, ...

    These are the names of torchvision and timm. The width follows from the weights. Raises RunError if there
    are none, or those of another network.
    """
    file = find_weights(name)
    state = read_weights(file)
    with expecting("the weights of VGG19 as torchvision names them", file):
        given = [state[name] for name in sorted(filter(_is_feature, state), key=_place)]
        network = FeatureNetwork(len(given[0]) / 64)
        own = network.rows.state_dict()
        network.rows.load_state_dict(dict(zip(own, given[: len(own)], strict=True)))
    return network.eval()


def _is_feature(name: str) -> bool:
    return name.startswith("features.")


def _place(name: str) -> tuple[int, bool]:
    """Return the sort key of a feature's weight: by layer, the bias last."""
    _, layer, kind = name.split(".")
    return int(layer), kind == "bias"


def find_weights(name: str) -> Path:
    """Return the file of that name or, without a file's suffix, the hub's weights of that name.

    A folder of the name's last part below $COGAN_DATA comes before the hub. Raises RunError if there is
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
            f"{name!r}: no such file (of {', '.join(READERS)}), and {HUB_FILE} of the hub cannot be loaded: {error}"
        ) from error


def read_weights(file: Path) -> Weights:
    """Read weights onto the CPU, by their names. Raises RunError if the file holds something else."""
    with expecting("weights", file):
        return READERS[file.suffix](file)
