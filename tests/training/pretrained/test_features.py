"""VGG19 as the perceptual couplings see with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.errors import RunError
from training.pretrained.features import DEVIATION, MEAN, Perception, load_perception

POOL = 0
WHOLE = (64, 64, POOL, 128, 128, POOL, *[256] * 4, POOL, *[512] * 4, POOL, *[512] * 4)  # table 1, E
AFTER_RELU = (1, 6, 11, 20, 29, 31)  # places of what is looked at in torchvision's sequence


@pytest.fixture
def whole() -> nn.Sequential:
    """Return all features of VGG19 as torchvision numbers them, a sixteenth as wide, at random."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    channels = 3
    for entry in WHOLE:
        if entry == POOL:
            modules.append(nn.MaxPool2d(2))
        else:
            modules += [nn.Conv2d(channels, entry // 16, 3, padding=1), nn.ReLU()]
            channels = entry // 16
    return nn.Sequential(*modules)


def save(network: nn.Module, file: Path) -> Path:
    """Write the weights as torchvision's file has them, or timm's, with a classifier behind them."""
    state: dict[str, Any] = {f"features.{name}": value for name, value in network.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state | {"pre_logits.fc1.weight": torch.zeros(4, 4)}, file)
    else:
        torch.save(state | {"classifier.0.weight": torch.zeros(4, 4)}, file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("file", ["vgg.pth", "model.safetensors"])
@torch.inference_mode()
def test_features_are_vggs(
    whole: nn.Sequential, tmp_path: Path, channels: int, image_range: tuple[float, float], file: str
) -> None:
    """From either library's file come the features of its network, of grey and RGB images of any range."""
    perceive = load_perception(str(save(whole, tmp_path / file))).of_range(image_range)
    shares = torch.rand(2, channels, 28, 28)
    low, high = image_range
    found = perceive(shares * (high - low) + low)
    value: Tensor = (shares.expand(-1, 3, -1, -1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[
        :, None, None
    ]
    expected = []
    for number, module in enumerate(whole):
        value = module(value)
        if number in AFTER_RELU:
            expected.append(value)
    torch.testing.assert_close(found, expected)


def test_at_full_width_it_is_vgg19() -> None:
    """The table has the weights of VGG19's features but for the last two convolutions, which nothing asks."""
    with torch.device("meta"):
        sizes = [weight.numel() for weight in Perception().parameters()]
    assert (len(sizes), sum(sizes)) == (28, 20_024_384 - 2 * (512 * 512 * 9 + 512))


def test_a_file_of_another_network_is_refused(whole: nn.Sequential, tmp_path: Path) -> None:
    """A network of fewer or other layers, and one of other names, are told by their path."""
    shallow = save(whole[:10], tmp_path / "shallow.safetensors")
    other = save(nn.Sequential(nn.Linear(3, 3), *list(whole)[1:]), tmp_path / "other.pth")
    unnamed = tmp_path / "unnamed.pth"
    torch.save(whole.state_dict(), unnamed)
    for file in (shallow, other, unnamed):
        with pytest.raises(RunError, match=rf"{file.name} does not hold the weights of VGG19"):
            load_perception(str(file))
