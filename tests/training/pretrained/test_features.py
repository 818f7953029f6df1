"""VGG19 as a feature network, and how its weights are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from training.errors import RunError
from training.pretrained.features import (
    DEVIATION,
    MEAN,
    FeatureNetwork,
    find_weights,
    load_feature_network,
    read_weights,
)

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
    vgg_features = load_feature_network(str(save(whole, tmp_path / file))).of_range(image_range)
    shares = torch.rand(2, channels, 28, 28)
    low, high = image_range
    found = vgg_features(shares * (high - low) + low)
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
        sizes = [weight.numel() for weight in FeatureNetwork().parameters()]
    assert (len(sizes), sum(sizes)) == (28, 20_024_384 - 2 * (512 * 512 * 9 + 512))


def test_a_file_of_another_network_is_refused(whole: nn.Sequential, tmp_path: Path) -> None:
    """A network of fewer or other layers, and one of other names, are named by their path."""
    shallow = save(whole[:10], tmp_path / "shallow.safetensors")
    other = save(nn.Sequential(nn.Linear(3, 3), *list(whole)[1:]), tmp_path / "other.pth")
    unnamed = tmp_path / "unnamed.pth"
    torch.save(whole.state_dict(), unnamed)
    for file in (shallow, other, unnamed):
        with pytest.raises(RunError, match=rf"{file.name} does not hold the weights of VGG19"):
            load_feature_network(str(file))


NAME = "someone/network.v1"
COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache: empty, of a machine that does not reach the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("COGAN_DATA", raising=False)
    return tmp_path / "cache"


def keep(folder: Path, value: float) -> Path:
    """Write weights into a folder as a repository of the hub has them."""
    folder.mkdir(parents=True)
    save_file({"weight": torch.tensor([value])}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_name_of_the_hub_is_what_the_hub_has(hub: Path) -> None:
    """A repository that was fetched once is read from the cache of the library."""
    repository = hub / "models--someone--network.v1"
    file = keep(repository / "snapshots" / COMMIT, 2.0)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert find_weights(NAME) == file
    assert read_weights(file) == {"weight": torch.tensor([2.0])}


def test_a_folder_below_the_data_root_comes_first(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the last part of the hub's, as with images; nothing is asked of the hub."""
    file = keep(tmp_path / "data" / "network.v1", 1.0)
    monkeypatch.setenv("COGAN_DATA", str(tmp_path / "data"))
    assert find_weights(NAME) == file.resolve()
    assert not hub.exists()
    file.unlink()
    with pytest.raises(RunError, match=r"network\.v1/model\.safetensors is missing"):
        find_weights(NAME)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", [NAME, "no such: name", "some/weights.bin"])
def test_missing_weights_are_an_error(name: str) -> None:
    """A repository that cannot be fetched, and what is no name of one, say what a file would be."""
    with pytest.raises(RunError, match=r"no such file \(of \.pt, \.pth, \.safetensors\), and model"):
        find_weights(name)


def test_a_file_is_known_by_how_it_ends(tmp_path: Path) -> None:
    """Where one of weights is missing the hub is not requested; a file of another kind is an error."""
    with pytest.raises(RunError, match=r"none\.pth is missing"):
        find_weights("some/none.pth")
    for name in ("text.pth", "text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(RunError, match=rf"{name} does not hold weights"):
            read_weights(find_weights(str(tmp_path / name)))
