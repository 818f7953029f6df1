"""A thin convolution computes what PyTorch's does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.networks.layers import build
from training.networks.thin import ThinConv2d
from training.zoo.rows import Layer


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1), (5, 2), (6, 2), (5, 4)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_results_and_gradients_are_those_of_a_convolution(kernel: int, padding: int, outputs: int) -> None:
    """Images, and the gradients of inputs, weights and biases, on images that are not square."""
    plain = nn.Conv2d(7, outputs, kernel, padding=padding)
    thin = ThinConv2d(7, outputs, kernel, padding=padding)
    thin.load_state_dict(plain.state_dict())
    images, weight = torch.randn(4, 7, 9, 8), None
    found = []
    for conv in (plain, thin):
        values = images.clone().requires_grad_()
        result = conv(values)
        weight = torch.randn_like(result) if weight is None else weight
        (result * weight).sum().backward()
        found.append([result, values.grad, *(one.grad for one in conv.parameters())])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_sums_in_full_precision() -> None:
    """Under autocast the sum over a window is as close to the exact one as PyTorch's own."""
    thin = ThinConv2d(64, 1, 5, padding=2)
    images = torch.randn(2, 64, 12, 12)
    exact = thin.eval()(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = thin.train()(images)
        usual = thin.eval()(images).float()
    assert (rough - exact).abs().max() < 2 * (usual - exact).abs().max()


def test_evaluation_takes_the_usual_convolution() -> None:
    """What is measured and exported is computed as everywhere else."""
    plain, thin = nn.Conv2d(5, 1, 3, padding=1), ThinConv2d(5, 1, 3, padding=1)
    thin.load_state_dict(plain.state_dict())
    images = torch.randn(2, 5, 8, 8)
    assert torch.equal(thin.eval()(images), plain(images))


@pytest.mark.parametrize(
    ("layer", "channels", "thin"),
    [
        (Layer("conv", "image", 3, 1, 1), 32, True),
        (Layer("conv", "image", 6, padding="same"), 32, True),
        (Layer("conv", "image", 3, 1, 1), 31, False),
        (Layer("conv", "image", 3, 2, 1), 32, False),
        (Layer("conv", "image", 3, 1, 3), 32, False),
        (Layer("conv", 3, 3, 1, 1), 32, False),
    ],
)
def test_only_an_image_of_many_features_is_thin(layer: Layer, channels: int, thin: bool) -> None:
    """Elsewhere the usual convolution is as fast, or its gradient's gradient may be needed."""
    modules = build([layer], (channels, 8, 8), 1.0, {"image": 3})[0]
    assert any(isinstance(module, ThinConv2d) for module in modules) == thin
