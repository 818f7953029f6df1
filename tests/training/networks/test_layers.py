"""Layers as modules: each field does what its sentence says, and a thin convolution computes what PyTorch's does."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from training.networks.layers import (
    ACTIVATIONS,
    NORMS,
    OPERATIONS,
    Activation,
    Flatten,
    Layer,
    Layers,
    Norm,
    Operation,
    ThinConv2d,
    build,
)

WINDOWS = list(product((3, 4, 5, 6), (1, 2, 3), ((12, 12), (7, 10))))  # kernel, stride, sides


def built(layer: Layer, *shape: int) -> Layers:
    """Build one row alone on an input of C, H, W."""
    channels, height, width = shape
    return build([layer], (channels, height, width), 1.0, {})[0]


def test_every_word_has_its_module() -> None:
    """What a table may say is what can be built, and nothing else."""
    assert set(get_args(Operation)) == set(OPERATIONS)
    assert set(get_args(Norm)) == set(NORMS)
    assert set(get_args(Activation)) == set(ACTIVATIONS)


@pytest.mark.parametrize(("kernel", "stride", "sides"), WINDOWS)
def test_same_leaves_the_length_to_the_stride(kernel: int, stride: int, sides: tuple[int, int]) -> None:
    """A convolution divides each side by the stride, rounding up; a deconvolution multiplies it."""
    images = torch.zeros(2, 3, *sides)
    down, smaller = build([Layer("conv", 5, kernel, stride, "same")], (3, *sides), 1.0, {})
    assert smaller == (5, -(-sides[0] // stride), -(-sides[1] // stride))
    assert down(images).shape == (2, *smaller)
    if kernel >= stride:
        up, larger = build([Layer("deconv", 5, kernel, stride, "same")], (3, *sides), 1.0, {})
        assert larger == (5, sides[0] * stride, sides[1] * stride)
        assert up(images).shape == (2, *larger)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of torch's own, which copies its input
@pytest.mark.parametrize("kernel", [3, 4, 5, 6])
def test_same_pads_as_torch_does_at_stride_one(kernel: int) -> None:
    """An odd padding has its last pixel below and on the right."""
    conv = built(Layer("conv", 5, kernel, padding="same"), 3, 9, 8)
    operation = next(module for module in conv if isinstance(module, nn.Conv2d))
    images = torch.randn(2, 3, 9, 8)
    expected = nn.functional.conv2d(images, operation.weight, operation.bias, padding="same")
    torch.testing.assert_close(conv(images), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (5, 2), (6, 1), (4, 1)])
def test_a_same_deconvolution_turns_the_convolution_round(kernel: int, stride: int) -> None:
    """It is the adjoint of the convolution with its weights, as TensorFlow defines it: <Cx, y> = <x, Dy>."""
    conv = built(Layer("conv", 4, kernel, stride, "same", norm="batch"), 3, 6 * stride, 4 * stride)[:-1]
    deconv = built(Layer("deconv", 3, kernel, stride, "same", norm="batch"), 4, 6, 4)[:-1]
    weights = [next(part.parameters()) for part in (conv, deconv)]
    weights[1].data = weights[0].data
    x, y = torch.randn(1, 3, 6 * stride, 4 * stride), torch.randn(1, 4, 6, 4)
    torch.testing.assert_close((conv(x) * y).sum(), (x * deconv(y)).sum())


def test_a_row_enlarges_before_its_operation() -> None:
    """Each pixel is repeated, and the operation sees the larger image."""
    images = torch.arange(4.0).reshape(1, 1, 2, 2)
    layers, shape = build([Layer("conv", 1, enlarge=3)], (1, 2, 2), 1.0, {})
    assert shape == (1, 6, 6)
    assert torch.equal(layers[0](images), images.repeat_interleave(3, 2).repeat_interleave(3, 3))
    assert isinstance(layers[1], nn.Conv2d)


def test_a_linear_row_puts_out_a_map() -> None:
    """Its kernel is the map's side; whatever comes in is flat first, and a norm goes by channel."""
    layers, shape = build([Layer("linear", 5, 4, norm="batch"), Layer("conv", 2, 3)], (7, 1, 1), 1.0, {})
    assert shape == (2, 2, 2)
    assert layers[:3](torch.randn(3, 7, 1, 1)).shape == (3, 5, 4, 4)
    assert isinstance(layers[3], nn.BatchNorm2d)
    assert layers(torch.randn(3, 7)).shape == (3, 2, 2, 2)


def test_the_norm_takes_its_place() -> None:
    """It comes before the activation, without a bias, or where it is the last after it, with one."""
    first = built(Layer("conv", 2, norm="batch", eps=0.8, activation="relu"), 1, 4, 4)
    assert [type(module) for module in first] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert first[0].bias is None
    last = built(Layer("linear", 2, norm="batch", norm_last=True, activation="relu"), 1, 4, 4)
    assert [type(module) for module in last] == [Flatten, nn.Linear, nn.ReLU, nn.BatchNorm1d]
    assert last[1].bias is not None
    assert (first[1].eps, last[3].eps) == (0.8, 1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_layer_norm_looks_at_one_place_of_one_image(operation: Operation) -> None:
    """Over its channels each place has mean 0 and variance 1, whatever else is in the image or the batch."""
    layers = built(Layer(operation, 64, norm="layer"), 3, 4, 4)
    images = 100 * torch.randn(5, 3, 4, 4)  # beside which eps is nothing
    normed = layers(images)
    places = normed.shape[:1] + normed.shape[2:]
    torch.testing.assert_close(normed.mean(1), torch.zeros(places), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(1, correction=0), torch.ones(places), atol=1e-3, rtol=0)
    torch.testing.assert_close(layers(images[:1]), normed[:1])


def test_slopes_are_the_rows() -> None:
    """A leaky ReLU keeps its row's slope below zero, and a PReLU begins with it."""
    for activation in ("leaky_relu", "prelu"):
        layers = built(Layer("conv", 1, activation=activation, slope=0.3), 1, 1, 1)
        assert layers[-1](torch.tensor([-2.0, 2.0])).tolist() == pytest.approx([-0.6, 2.0])


def test_dropout_leaves_out_values_or_channels() -> None:
    """Single values go, or whole channels go together; outside of training nothing does."""
    for layer, together in ((Layer("conv", 64, dropout=0.5), False), (Layer("conv", 64, channel_dropout=0.5), True)):
        layers = built(layer, 1, 8, 8)
        torch.manual_seed(0)
        kept: Tensor = layers(torch.ones(1, 1, 8, 8)) != 0
        assert 0.3 < kept.float().mean() < 0.7
        assert bool((kept.flatten(2).all(2) | ~kept.flatten(2).any(2)).all()) == together
        assert (layers.eval()(torch.ones(1, 1, 8, 8)) != 0).all()


def test_convolutions_keep_their_memory_layout_beside_linear_layers() -> None:
    """A map made of a linear layer, and the gradient of what is flattened, have the layout channels last."""
    rows = [Layer("linear", 5, 4), Layer("conv", 6, 3, 1, 1, activation="relu"), Layer("linear", 2)]
    layers, _ = build(rows, (7, 1, 1), 1.0, {})
    layouts: list[bool] = []

    def note(values: Tensor) -> None:
        layouts.append(values.is_contiguous(memory_format=torch.channels_last))

    def look(_module: nn.Module, _inputs: object, features: Tensor) -> None:
        note(features)
        features.register_hook(note)

    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    for module in layers:
        if isinstance(module, nn.Unflatten | nn.Conv2d):
            module.register_forward_hook(look)
    layers(torch.randn(3, 7)).sum().backward()
    assert layouts == [True] * 4


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
