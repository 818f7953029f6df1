"""An exported graph is rewritten to be computed faster: the same values, by other convolutions."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.onnx_rewrite import (
    doubling_weights,
    phase_weights,
    read_halves,
    rewrite,
    store_halves,
    tile_weights,
    undo,
)

RNG = np.random.default_rng(0)
CHANNELS = 6


class Network:
    """A graph that is put together node by node, of a map "x" [B, CHANNELS, size, size]."""

    def __init__(self, size: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []
        self.outputs: list[str] = []
        self._size = size

    def weights(self, *shape: int, name: str = "") -> str:
        """Store random weights."""
        name = name or f"weights{len(self.values)}"
        self.values.append(numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name))
        return name

    def layer(self, kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        """Add a node."""
        self.nodes.append(helper.make_node(kind, [*inputs], [output], **attributes))
        return output

    def double(self, source: str, out: int, name: str = "map", **attributes: Any) -> str:
        """Add a transposed convolution of stride 2."""
        stated = {"strides": [2, 2], "pads": [1] * 4} | attributes
        return self.layer("ConvTranspose", source, self.weights(CHANNELS, out, 4, 4), output=name, **stated)

    def draw(self, source: str, out: int = 1, kernel: int = 5, name: str = "image", **attributes: Any) -> str:
        """Add a convolution that is an output."""
        stated = {"pads": [kernel // 2] * 4} | attributes
        self.outputs.append(name)
        weights, bias = self.weights(out, CHANNELS, kernel, kernel), self.weights(out)
        return self.layer("Conv", source, weights, bias, output=name, **stated)

    def model(self) -> onnx.ModelProto:
        """Return the graph as a model."""
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, self._size, self._size])
        graph = helper.make_graph(self.nodes, "network", [source], outputs, self.values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model)


def rewritten(model: onnx.ModelProto, size: int) -> Counter[str]:
    """Rewrite a model, hold it to what it computed before, and return its operations."""
    new = copy.deepcopy(model)
    rewrite(new)
    onnx.checker.check_model(new, full_check=True)
    x = RNG.normal(size=(3, CHANNELS, size, size)).astype(np.float32)
    for wanted, found in zip(run(model, x), run(new, x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    once = new.SerializeToString()
    rewrite(new)
    assert new.SerializeToString() == once  # there is no more to be done
    return Counter(node.op_type for node in new.graph.node)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Compute a model's outputs."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


@pytest.mark.parametrize(
    ("size", "out", "kernel", "side"), [(28, 1, 5, 4), (8, 1, 1, 4), (64, 3, 3, 2), (6, 1, 7, 2), (4, 4, 5, 2)]
)
def test_a_layer_with_few_output_channels_draws_tiles(size: int, out: int, kernel: int, side: int) -> None:
    """They are as large as its channels and the map allow."""
    network = Network(size)
    network.draw("x", out, kernel)
    model = network.model()
    assert rewritten(model, size) == {"Conv": 1, "DepthToSpace": 1}
    rewrite(model)
    assert list(model.graph.initializer[0].dims) == [out * side**2, CHANNELS, kernel + side - 1, kernel + side - 1]


@pytest.mark.parametrize(
    ("size", "out", "attributes"),
    [
        (7, 1, {}),  # no tile fits
        (8, 5, {}),  # tiles of so many channels are more than are computed together
        (8, 1, {"strides": [2, 2]}),
        (8, 1, {"dilations": [2, 2], "pads": [4] * 4}),
        (8, 1, {"pads": [0] * 4}),
        (8, 1, {"pads": [1, 2, 3, 2]}),
    ],
)
def test_other_layers_stay_as_they_are(size: int, out: int, attributes: dict[str, Any]) -> None:
    """Tiles would draw something else, or in vain."""
    network = Network(size)
    network.draw("x", out, **attributes)
    assert rewritten(network.model(), size) == {"Conv": 1}


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("pointwise", ["LeakyRelu", "PRelu"])
def test_the_phases_of_a_doubled_map_stay_apart(pointwise: str, kernel: int) -> None:
    """If only tiled layers read it, whatever their kernel is; a normalisation may come between."""
    network = Network(6)
    network.double("x", CHANNELS)
    norm = [network.weights(CHANNELS) for _ in range(3)]
    network.values.append(numpy_helper.from_array(np.linspace(0.5, 2, CHANNELS, dtype=np.float32), "variance"))
    network.layer("BatchNormalization", "map", *norm, "variance", output="even", epsilon=0.1)
    slope = [network.weights(CHANNELS, 1, 1)] if pointwise == "PRelu" else []
    network.layer(pointwise, "even", *slope, output="bent")
    for name, out in (("grey", 1), ("colour", 3)):
        network.draw("bent", out, kernel, name)
    assert rewritten(network.model(), 6) == {"Conv": 6, pointwise: 4, "Concat": 1, "DepthToSpace": 2}


def read_twice(network: Network) -> None:
    """Read the map of the tiled layers once more."""
    network.outputs.append(network.layer("Tanh", "bent", output="also"))


def read_before(network: Network) -> None:
    """Read it before its pointwise function."""
    network.outputs.append(network.layer("Tanh", "map", output="also"))


def put_out(network: Network) -> None:
    """Make it an output, beside another one."""
    network.outputs.append("bent")
    network.outputs.append(network.layer("Tanh", "image", output="also"))


@pytest.mark.parametrize("change", [read_twice, read_before, put_out])
def test_a_small_map_that_others_read_is_laid_out(change: Any) -> None:
    """Its phases are still computed one by one, and the layers that read it are tiled."""
    network = Network(6)
    network.layer("LeakyRelu", network.double("x", CHANNELS), output="bent")
    network.draw("bent")
    change(network)
    operations = {"LeakyRelu": 1, "Conv": 5, "Concat": 1, "DepthToSpace": 2, "Tanh": 1}
    assert rewritten(network.model(), 6) == operations


def test_a_large_map_that_others_read_is_doubled_as_it_was() -> None:
    """To lay it out would take more time than its phases save."""
    network = Network(10)
    network.outputs.append(network.layer("Tanh", network.double("x", CHANNELS), output="also"))
    assert rewritten(network.model(), 10) == {"ConvTranspose": 1, "Tanh": 1}


@pytest.mark.parametrize("out", [1, 3])
def test_layers_that_draw_alike_become_one(out: int) -> None:
    """Of each map, and of each kernel, one; the images are parted behind it."""
    network = Network(8)
    network.layer("Tanh", "x", output="bent")
    for number, (source, kernel) in enumerate([("x", 5), ("bent", 5), ("x", 3), ("x", 5), ("bent", 5), ("x", 5)]):
        network.draw(source, out, kernel, f"image{number}")
    operations = {"Tanh": 1, "Conv": 3, "DepthToSpace": 3, "Concat": 4, "Split": 2}
    assert rewritten(network.model(), 8) == operations


def test_weights_that_several_layers_share_are_stored_once() -> None:
    """As in an encoder, which generates once a pass."""
    network = Network(8)
    network.weights(1, CHANNELS, 5, 5, name="shared")
    for name, source in (("first", "x"), ("second", network.layer("Tanh", "x", output="bent"))):
        network.outputs.append(network.layer("Conv", source, "shared", output=name, pads=[2] * 4))
    model = network.model()
    assert rewritten(model, 8) == {"Conv": 2, "DepthToSpace": 2, "Tanh": 1}
    rewrite(model)
    assert len(model.graph.initializer) == 1


def test_large_weights_are_stored_in_half_precision() -> None:
    """The file has half the size, and the graph computes nearly the same; small weights stay."""
    network = Network(8)
    network.draw("x", 40, 5)
    network.draw("x", 5, 5, "other")
    model = network.model()
    small, x = copy.deepcopy(model), RNG.normal(size=(3, CHANNELS, 8, 8)).astype(np.float32)
    store_halves(small)
    onnx.checker.check_model(small, full_check=True)
    assert [value.data_type for value in small.graph.initializer] == [TensorProto.FLOAT16, *[TensorProto.FLOAT] * 3]
    assert small.ByteSize() < 0.6 * model.ByteSize()
    for wanted, found in zip(run(model, x), run(small, x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2**-11 * np.abs(wanted).max())
    again = copy.deepcopy(small)
    store_halves(again)
    assert again == small
    assert read_halves(again)
    assert all(value.data_type == TensorProto.FLOAT for value in again.graph.initializer)
    store_halves(again)
    assert again == small
    assert not read_halves(model)


def test_weights_are_found_again() -> None:
    """As `training.restore` needs them."""
    weights = RNG.normal(size=(3, 5, 4, 4)).astype(np.float32)
    assert (undo(doubling_weights, doubling_weights(weights), weights.shape) == weights).all()

    def tiled(plain: NDArray[Any]) -> NDArray[Any]:
        return phase_weights(tile_weights(plain, 4), 2)

    weights = RNG.normal(size=(1, 5, 5, 5)).astype(np.float32)
    assert (undo(tiled, tiled(weights), weights.shape) == weights).all()
