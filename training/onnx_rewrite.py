"""An exported graph in a form that onnxruntime computes faster; it computes the same values, but for rounding.

Normalisations become part of the convolutions before them. onnxruntime computes a convolution for blocks of 16 output
channels, so one with a grey image as output does 16 times its work; in tiles, it computes b x b pixels at each place,
as many output channels, by a kernel of k + b - 1 and a stride of b (sub-pixel convolution: Shi et al. 2016, section
2.2). Of a map that a transposed convolution doubles, a 2x2 convolution computes each of the four phases, the pixels of
even and odd rows and columns; if only tiled layers read the map, its phases stay channels of their own. Convolutions
that draw tiles of one map, as those of the domains, become one.

Axes of weights: O out, C in, K a kernel's side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.numpy_helper import from_array, to_array

Weights = NDArray[np.float32]
Rewrite = Callable[[NDArray[Any]], NDArray[Any]]
Nodes = Iterator[onnx.NodeProto]
BLOCK = 16  # output channels that are computed together
SIDES = (4, 2)  # of a tile, the first that fits
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a doubled map: first rows, first columns
LAID_OUT = 16  # pixels of a doubled map's sides up to which laying out its phases takes less than they save
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
POINTWISE = ("LeakyRelu", "PRelu", "Relu")
LARGE = 4096  # values, from which on weights are worth a cast
EPSILON = 1e-5  # of a normalisation that states none
UNSTATED: dict[str, Any] = {
    "pads": [0, 0, 0, 0],
    "strides": [1, 1],
    "dilations": [1, 1],
    "output_padding": [0, 0],
    "group": 1,
    "auto_pad": b"NOTSET",
}  # attributes of a convolution that states none


def rewrite(model: onnx.ModelProto) -> None:
    """Rewrite a graph in place: normalisations folded, few output channels in tiles, convolutions of one map joined."""
    for rewriter in (NormFolder, Tiler, Joiner):
        graph = model.graph
        rewriting = rewriter(model)
        nodes = [new for node in graph.node for new in rewriting.rewrite(node)]
        unused = rewriting.readers.keys() - {name for node in nodes for name in node.input}
        values = [value for value in rewriting.stored.values() if value.name not in unused]
        for field, entries in ((graph.node, nodes), (graph.initializer, values), (graph.value_info, [])):
            del field[:]
            field.extend(entries)


def store_halves(model: onnx.ModelProto) -> None:
    """Store large weights of a graph in half precision, in place; onnxruntime makes floats of them as it loads a file.

    A relative change of at most 2**-11.
    """
    graph, casts = model.graph, []
    for value in graph.initializer:
        if value.data_type == onnx.TensorProto.FLOAT and int(np.prod(value.dims)) >= LARGE:
            name, halves = value.name, to_array(value).astype(np.float16)
            value.CopyFrom(from_array(halves, f"{name}.half"))
            casts.append(helper.make_node("Cast", [value.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def read_halves(model: onnx.ModelProto) -> bool:
    """Store as floats what `store_halves` stored as halves, in place; return whether there was any."""
    graph, nodes = model.graph, list[onnx.NodeProto]()
    halves = {value.name: value for value in graph.initializer if value.data_type == onnx.TensorProto.FLOAT16}
    for node in graph.node:
        if node.op_type == "Cast" and (value := halves.get(node.input[0])) is not None:
            value.CopyFrom(from_array(to_array(value).astype(np.float32), node.output[0]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return bool(halves)


class Rewriter:
    """Rewrites the nodes of a graph, one after another, and keeps the weights that they need, each once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.stored = {value.name: value for value in model.graph.initializer}
        self.readers = defaultdict[str, list[onnx.NodeProto]](list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        for output in model.graph.output:
            self.readers[output.name].append(onnx.NodeProto())  # what calls the graph reads it, too

    def rewrite(self, node: onnx.NodeProto) -> Nodes:
        """Yield what takes the place of a node."""
        raise NotImplementedError

    def array(self, name: str) -> Weights:
        """Return stored weights."""
        return to_array(self.stored[name])

    def add(self, name: str, values: Weights) -> str:
        """Store weights, and return their name, which says how they were made of stored ones."""
        self.stored[name] = from_array(np.ascontiguousarray(values, np.float32), name)
        return name


class NormFolder(Rewriter):
    """Makes a normalisation part of the convolution whose output it alone reads."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._norms = {
            node.output[0]: after[0]
            for node in model.graph.node
            if node.op_type in ("Conv", "ConvTranspose")
            and len(after := self.readers[node.output[0]]) == 1
            and after[0].op_type == "BatchNormalization"
            and {*node.input[1:], *after[0].input[1:]} <= self.stored.keys()
            and attributes(node)["group"] == 1
        }
        self._folded = {norm.output[0] for norm in self._norms.values()}

    def rewrite(self, node: onnx.NodeProto) -> Nodes:
        """Yield a convolution with the normalisation that follows, nothing for that, any other node as it is."""
        if norm := self._norms.get(node.output[0]):
            one = onnx.NodeProto()
            one.CopyFrom(node)
            one.output[0] = norm.output[0]
            del one.input[1:]
            one.input.extend(self._fold(node, norm))
            yield one
        elif node.output[0] not in self._folded:
            yield node

    def _fold(self, node: onnx.NodeProto, norm: onnx.NodeProto) -> list[str]:
        """Return the names of the weights and the bias of a convolution with its normalisation."""
        scale, shift, mean, variance = (self.array(name) for name in norm.input[1:5])
        factor = scale / np.sqrt(variance + attributes(norm).get("epsilon", EPSILON))
        bias = self.array(node.input[2]) if len(node.input) > 2 else np.zeros_like(mean)
        outputs = (1, -1, 1, 1) if node.op_type == "ConvTranspose" else (-1, 1, 1, 1)
        name = f"{node.input[1]}.by.{norm.input[1]}"
        weights = self.array(node.input[1]) * factor.reshape(outputs)
        return [self.add(name, weights), self.add(f"{name}.bias", (bias - mean) * factor + shift)]


class Tiler(Rewriter):
    """Tiles the convolutions that have few output channels, and computes the phases of doubled maps."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        sizes, nodes = sizes_of(model), model.graph.node
        self._sides = {node.output[0]: side for node in nodes if (side := self._side(node, sizes))}
        self._apart = {node.output[0] for node in nodes if self._stays_apart(node)}
        self._small = {name for name, sides in sizes.items() if max(sides) <= LAID_OUT}
        self._phases: dict[str, list[str]] = {}  # of a map, once they are computed

    def rewrite(self, node: onnx.NodeProto) -> Nodes:
        """Yield what takes the place of a node: itself, if it is no part of a tiled layer."""
        if node.output[0] in self._sides:
            yield from self._tile(node)
        elif node.output[0] in self._apart:
            yield from self._double(node)
        elif node.output[0] in self._small and self._doubles(node):
            yield from self._double(node)
            yield from self._lay_out(node)
        elif node.op_type in POINTWISE and node.input[0] in self._apart:
            yield from self._apply(node)
        else:
            yield node

    def _side(self, node: onnx.NodeProto, sizes: Mapping[str, tuple[int, int]]) -> int | None:
        """Return the side of a node's tiles, if it is a convolution with few output channels."""
        if node.op_type != "Conv" or node.input[1] not in self.stored or node.output[0] not in sizes:
            return None
        out, _, kernel, wide = self.stored[node.input[1]].dims
        if kernel != wide or kernel % 2 == 0 or not states(node, pads=[kernel // 2] * 4):
            return None
        fits = (side for side in SIDES if side**2 * out <= BLOCK and not any(n % side for n in sizes[node.output[0]]))
        return next(fits, None)

    def _doubles(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a transposed convolution whose phases 2x2 convolutions compute."""
        if node.op_type != "ConvTranspose" or node.input[1] not in self.stored:
            return False
        sides = self.stored[node.input[1]].dims[2:]
        return sides == [4, 4] and states(node, pads=[1] * 4, strides=[2, 2])

    def _stays_apart(self, node: onnx.NodeProto) -> bool:
        """Return whether a node doubles a map that only tiled layers read, through one pointwise function."""
        after = self.readers[node.output[0]]
        if not self._doubles(node) or len(after) != 1 or after[0].op_type not in POINTWISE:
            return False
        last = self.readers[after[0].output[0]]
        return bool(last) and all({*reader.output} & self._sides.keys() for reader in last)

    def _tile(self, node: onnx.NodeProto) -> Nodes:
        """Yield a convolution that computes tiles, of a map or its phases, and the node that makes an image of them."""
        (source, weights, *bias), name, side = node.input, node.output[0], self._sides[node.output[0]]
        pad, stride, tiled = attributes(node)["pads"][0], side, tile_weights(self.array(weights), side)
        made = f"{weights}.tiles"
        if source in self._phases:
            made, tiled, pad, stride = f"{weights}.of_phases.tiles", phase_weights(tiled, pad), -(-pad // 2), side // 2
        inputs = [source, self.add(made, tiled)]
        inputs += [self.add(f"{one}.tiles", np.repeat(self.array(one), side**2)) for one in bias]
        yield helper.make_node("Conv", inputs, [f"{name}.tiles"], strides=[stride] * 2, pads=[pad] * 4)
        yield helper.make_node("DepthToSpace", [f"{name}.tiles"], [name], blocksize=side, mode="CRD")

    def _double(self, node: onnx.NodeProto) -> Nodes:
        """Yield the four convolutions that compute the phases of a doubled map."""
        (source, weights, *bias), name = node.input, node.output[0]
        self._phases[name] = [f"{name}.phase{row}{column}" for row, column in PHASES]
        phases = zip(PHASES, doubling_weights(self.array(weights)), self._phases[name], strict=True)
        for (row, column), phase, output in phases:
            inputs = [source, self.add(f"{weights}.phase{row}{column}", phase), *bias]
            yield helper.make_node("Conv", inputs, [output], pads=[1 - row, 1 - column, row, column])

    def _lay_out(self, node: onnx.NodeProto) -> Nodes:
        """Yield what makes a map of its phases."""
        name = node.output[0]
        yield helper.make_node("Concat", self._phases.pop(name), [f"{name}.phases"], axis=1)
        yield helper.make_node("DepthToSpace", [f"{name}.phases"], [name], blocksize=2, mode="DCR")

    def _apply(self, node: onnx.NodeProto) -> Nodes:
        """Yield a pointwise function of each phase, and all phases as the channels of one map."""
        name, phases = node.output[0], self._phases[node.input[0]]
        self._phases[name] = [f"{phase}.{node.op_type}" for phase in phases]
        for phase, output in zip(phases, self._phases[name], strict=True):
            one = onnx.NodeProto()
            one.CopyFrom(node)
            one.name, one.input[0], one.output[0] = "", phase, output
            yield one
        yield helper.make_node("Concat", self._phases[name], [name], axis=1)


class Joiner(Rewriter):
    """Makes one convolution of several that draw tiles of one map, which is then read once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        alike = defaultdict[Any, list[onnx.NodeProto]](list)  # by what such convolutions have in common
        for node in model.graph.node:
            if (form := self._form(node)) is not None:
                alike[form].append(node)
        self._joined = {nodes[0].output[0]: nodes for nodes in alike.values() if len(nodes) > 1}
        drawn = [node.output[0] for nodes in self._joined.values() for node in nodes]
        self._images = {name: self.readers[name][0].output[0] for name in drawn}

    def rewrite(self, node: onnx.NodeProto) -> Nodes:
        """Yield the joined convolution in place of the first, nothing for the others, other nodes as they are."""
        name = node.output[0]
        if nodes := self._joined.get(name):
            yield from self._join(nodes)
        elif name not in self._images and not (node.op_type == "DepthToSpace" and node.input[0] in self._images):
            yield node

    def _form(self, node: onnx.NodeProto) -> Any:
        """Return what a convolution that draws tiles must have in common with another; None of any other node."""
        if node.op_type != "Conv" or not self.stored.keys() >= {*node.input[1:]}:
            return None
        after = self.readers[node.output[0]]
        if len(after) != 1 or after[0].op_type != "DepthToSpace":
            return None
        values = [str(attributes(one)) for one in (node, after[0])]
        return (node.input[0], len(node.input), *self.stored[node.input[1]].dims, *values)

    def _join(self, nodes: list[onnx.NodeProto]) -> Nodes:
        """Yield the convolution of all their weights, whose tiles make all images, and what parts these."""
        first, name = nodes[0], ".".join(node.output[0] for node in nodes)
        inputs = [first.input[0]]
        for same in zip(*(node.input[1:] for node in nodes), strict=True):  # weights, then biases
            inputs.append(f"{name}.{len(inputs)}")
            yield helper.make_node("Concat", same, inputs[-1:], axis=0)
        yield helper.make_node("Conv", inputs, [name], **stated(first))
        (drawn,) = self.readers[first.output[0]]
        yield helper.make_node("DepthToSpace", [name], [f"{name}.images"], **stated(drawn))
        images = [self._images[node.output[0]] for node in nodes]
        yield helper.make_node("Split", [f"{name}.images"], images, axis=1, num_outputs=len(images))


def tile_weights(weights: Weights, side: int) -> Weights:
    """Return the weights [O side**2, C, K + side - 1, K + side - 1] of tiles, of those of pixels, [O, C, K, K]."""
    out, channels, kernel, _ = weights.shape
    tiled = np.zeros((out, side, side, channels, kernel + side - 1, kernel + side - 1), weights.dtype)
    for row in range(side):
        for column in range(side):
            tiled[:, row, column, :, row : row + kernel, column : column + kernel] = weights
    return tiled.reshape(out * side**2, *tiled.shape[3:])


def phase_weights(weights: Weights, pad: int) -> Weights:
    """Return the weights [O, 4 C, ...] that read the phases of a map as [O, C, K, K] with that padding read the map."""
    even = np.pad(weights, ((0, 0), (0, 0), *[(pad % 2, (weights.shape[2] + pad) % 2)] * 2))
    return np.concatenate([even[:, :, row::2, column::2] for row, column in PHASES], axis=1)


def doubling_weights(weights: Weights) -> Weights:
    """Return the weights [4, O, C, 2, 2] of the phases of a transposed convolution [C, O, 4, 4], of stride 2, pad 1."""
    rows = ([3, 1], [2, 0])  # of the kernel, that meet an even and an odd row of the map
    phases = [weights[:, :, rows[row]][..., rows[column]] for row, column in PHASES]
    return np.stack(phases).swapaxes(1, 2)


def undo(made: Rewrite, values: Weights, shape: tuple[int, ...]) -> Weights:
    """Return the weights of that shape of which `made`, which lays them out among zeros, made `values`."""
    count = int(np.prod(shape))
    places = made(np.arange(1, 1 + count).reshape(shape)).reshape(-1)
    weights = np.zeros(1 + count, values.dtype)
    weights[places] = values.reshape(-1)
    return weights[1:].reshape(shape)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node, and those of a convolution that are not stated."""
    return UNSTATED | stated(node)


def stated(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes that a node states."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def states(node: onnx.NodeProto, **wanted: Any) -> bool:
    """Return whether a convolution has these attributes, and no others of consequence."""
    given = attributes(node)
    return all(given[name] == value for name, value in (UNSTATED | wanted).items())


def sizes_of(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Return height and width of the maps of a graph that have fixed ones."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = {}
    for value in (*graph.value_info, *graph.output):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim[2:]]
        if len(sides) == 2 and all(sides):
            sizes[value.name] = (sides[0], sides[1])
    return sizes
