"""A network as one self-describing ONNX file: its graph, the proof that it computes what the network does, its card.

A generator's file names directions of the latent along which its images change most (Shen & Zhou, SeFa, CVPR 2021,
section 3): the singular vectors of the weights of the layers that take the latent. The weights are read from the
exported graph, so that a model whose run is gone has directions, too. The card, README.md and sheet.png beside the
versions, is what model hubs show. Axes: B batch, Z latent, F features, K classes, H, W, C channels.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from service.latents import draw_latent
from service.metadata import (
    CLASSES,
    LATENT,
    MAX_DIRECTIONS,
    METADATA_KEY,
    PREVIOUS,
    Direction,
    Domain,
    ModelMetadata,
    Prior,
)
from training.config.data import DomainConfig
from training.errors import ExportError
from training.files import write_whole
from training.losses.pixels import Images, from_bytes, to_bytes
from training.networks.coupled import AdaptedClassifier, CoupledGenerator, latents_of_seeds
from training.onnx_rewrite import LINEAR, read_halves, rewrite, store_halves
from training.pretrained.classifier import Classifier
from training.pretrained.encoder import LatentEncoder
from training.runs.figures import save_sheet

PROOF_BATCHES = (1, 2, 7, 64)
SPREADS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of a sheet
DIGITS = 7  # of a value in the metadata
NEGLIGIBLE = 1e-6  # of the strongest direction: what changes features less is rounding
PAIRS, COLUMNS = 32, 4  # on the sheet
WRITTEN = "<!-- written anew by each export, unless this line is removed -->"
CARD = """\
---
license: other
license_name: that-of-the-data
library_name: onnx
{task}tags: [cogan, coupled-gan, {kind}]
---
{written}

# {name}

{summary}
{sheet}
| domain | height x width x channels | description |
| --- | --- | --- |
{domains}

## Quality

As measured for version {version}, after {steps} steps from seed {seed}.

| figure | value |
| --- | --- |
{quality}

## Licence and credit

Trained on: {data_license}

The method is that of Liu & Tuzel, *Coupled Generative Adversarial Networks*, NIPS 2016.

## How to serve

`{version}/model.onnx` describes itself. From a checkout of CoGAN, with this folder published as `USER/{name}`:

```sh
make serve MODELS=hf://USER/{name}
curl {request}
```
"""
SUMMARIES = {
    "generator": "Coupled images: each latent of {size} values gives the same content in every domain.",
    "classifier": "Classifies images of its domain as one of {classes}.",
    "encoder": "Finds the latent of given images.",
}


def write_onnx(network: nn.Module, metadata: ModelMetadata, file: Path, halves: bool = False) -> None:
    """Write the graph of a network of the metadata's kind, as `save_onnx` does."""
    save_onnx(trace(make_graph(network, metadata)), metadata, file, halves)


def trace(graph: Graph) -> onnx.ModelProto:
    """Return a graph as PyTorch's exporter makes it, without its notes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated functions
        program = torch.onnx.export(
            graph.network,
            graph.examples(2),  # a batch of 1 would be taken for a constant
            input_names=[port.name for port in graph.inputs],
            output_names=[output.name for output in graph.outputs],
            dynamic_shapes=tuple({0: "batch"} for _ in graph.inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    _rename_inner(program.model.graph)
    model = program.model_proto
    for node in model.graph.node:  # traces of the source files that every operation came from
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return model


def save_onnx(model: onnx.ModelProto, metadata: ModelMetadata, file: Path, halves: bool = False) -> None:
    """Save a model in a form that is computed faster, with its metadata; `halves`: weights in half precision.

    A generator's file has its directions; an encoder's, which holds its generator too, always has halves. What has been
    exported with halves keeps them.
    """
    halves |= read_halves(model) or metadata.kind == "encoder"
    rewrite(model)
    if halves:
        store_halves(model)
    if metadata.kind == "generator":
        metadata = with_directions(model, metadata)
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _rename_inner(graph: Any) -> None:
    """Rename inner values that have the name of an output: a domain may have any name."""
    taken = {output.name for output in graph.outputs}
    for value in (value for node in graph for value in node.outputs):
        if value.name in taken and not any(value is output for output in graph.outputs):
            value.name = f"inner_{value.name}"


def prove(graph: Graph, file: Path, computed_by: str = "PyTorch") -> str:
    """Compare the file in onnxruntime with the network of a graph at several batch sizes, and return a summary.

    Raises ExportError if any value differs by more than rounding explains: bytes by more than 1, probabilities by
    more than 0.0001, latents by more than 0.01.
    """
    exported = ExportedGraph(file, graph.inputs, graph.outputs)
    differing, total, greatest = 0, 0, 0.0
    for batch in PROOF_BATCHES:
        examples = graph.examples(batch)
        with torch.inference_mode():
            expected, found = graph.network(*examples), exported(*examples)
        for output, wanted, got in zip(graph.outputs, expected, found, strict=True):
            difference = (wanted.double() - got.double()).abs()
            most = float(difference.max())
            if not most <= graph.tolerance:  # which NaN is not, either
                raise ExportError(f"{output.name}, batch {batch}: values differ by up to {most:.4g}")
            greatest = max(greatest, most)
            differing += int((difference > 0).sum())
            total += difference.numel()
    return (
        f"onnxruntime computes what {computed_by} does at batches {PROOF_BATCHES}: {differing} of {total} values "
        f"differ, by {greatest:.2g} at most"
    )


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type, and its shape behind the batch."""

    name: str
    kind: Literal["FP32", "UINT8"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A network from tensors to a tuple of tensors, ready to be exported and proven."""

    network: nn.Module
    metadata: ModelMetadata
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tolerance: float
    """Greatest difference between two libraries' outputs that rounding explains."""

    def examples(self, batch: int) -> tuple[Tensor, ...]:
        """Return a batch of each input, always the same: latents of seeds, and images of noise."""

        def example(port: Port) -> Tensor:
            if port.kind == "FP32":
                return latents_of_seeds(_prior(self.metadata), range(batch))
            known = torch.Generator().manual_seed(0)
            return torch.randint(256, (batch, *port.shape), dtype=torch.uint8, generator=known)

        return tuple(map(example, self.inputs))


class GeneratorGraph(nn.Module):
    """The exported graph of a generator: latents [B, Z] -> a tuple of uint8 [B, H, W, C]."""

    def __init__(self, generator: CoupledGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Generate pairs as the service sends them."""
        images = self.generator(latent).values()
        return tuple(to_bytes(batch, self.generator.image_range).permute(0, 2, 3, 1) for batch in images)


class ClassifierGraph(nn.Module):
    """The exported graph of a classifier: images uint8 [B, H, W, C] -> a tuple of one, probabilities [B, K]."""

    def __init__(self, classifier: Classifier | AdaptedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities of the classes."""
        return (self.classifier(images.permute(0, 3, 1, 2)).softmax(1),)


class EncoderGraph(nn.Module):
    """One pass of a domain's encoder: images uint8 [B, H, W, C], previous latents [B, Z] -> a tuple of one, latents."""

    def __init__(self, encoder: LatentEncoder, domain: str) -> None:
        super().__init__()
        self.encoder, self._domain = encoder, domain

    def forward(self, images: Tensor, previous: Tensor) -> tuple[Tensor, ...]:
        """Return the latents after one more pass."""
        real = from_bytes(images.permute(0, 3, 1, 2), self.encoder.image_range)
        return (self.encoder.improve(self._domain, real, previous),)


class ExportedGraph(nn.Module):
    """An exported file: the inputs of its graph -> a tuple of its outputs."""

    def __init__(self, file: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        super().__init__()
        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self._inputs, self._outputs = ([port.name for port in ports] for ports in (inputs, outputs))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs in onnxruntime."""
        values = {name: tensor.numpy() for name, tensor in zip(self._inputs, inputs, strict=True)}
        return tuple(map(torch.from_numpy, self._session.run(self._outputs, values)))


def make_graph(network: Any, metadata: ModelMetadata) -> Graph:
    """Return the graph of a generator, a classifier or an encoder, as the metadata say."""
    images = tuple(Port(d.name, "UINT8", (d.height, d.width, d.channels)) for d in metadata.domains)
    size = (metadata.prior.latent_dim if metadata.prior else 0,)
    latent, previous = Port(LATENT, "FP32", size), Port(PREVIOUS, "FP32", size)
    if metadata.kind == "generator":
        # floats on the border of two bytes round differently
        return Graph(GeneratorGraph(network).eval(), metadata, (latent,), images, tolerance=1)
    if metadata.kind == "classifier":
        classes = Port(CLASSES, "FP32", (len(metadata.classes),))
        return Graph(ClassifierGraph(network).eval(), metadata, images, (classes,), tolerance=1e-4)
    encoder = EncoderGraph(network, metadata.domains[0].name)
    return Graph(encoder.eval(), metadata, (*images, previous), (latent,), tolerance=1e-2)


def exported_graph(file: Path, metadata: ModelMetadata) -> Graph:
    """Return the graph of an exported file, computed by onnxruntime."""
    graph = make_graph(nn.Identity(), metadata)  # its ports; the network is in the file
    return replace(graph, network=ExportedGraph(file, graph.inputs, graph.outputs))


def _prior(metadata: ModelMetadata) -> Prior:
    assert metadata.prior is not None, "the metadata of generators and encoders have one"
    return metadata.prior


def describe_domain(domain: DomainConfig, size: tuple[int, int]) -> Domain:
    """Return a domain of images of that height and width as an exported file states it."""
    names = {name: getattr(domain, name) for name in ("name", "channels", "description")}
    return Domain(height=size[0], width=size[1], **names)


def with_directions(model: onnx.ModelProto, metadata: ModelMetadata) -> ModelMetadata:
    """Return a generator's metadata with the directions of its graph, named as its recipe names them."""
    names: Any = metadata.provenance.experiment.get("direction_names", ())
    return metadata.model_copy(update={"directions": find_directions(model, _prior(metadata), names)})


def find_directions(model: onnx.ModelProto, prior: Prior, names: Sequence[str] = ()) -> tuple[Direction, ...]:
    """Return unit vectors of the latent that move the first features, the one that does most first.

    Names are given by position; an empty one is none. The sign makes the greatest value positive.
    """
    weights = first_weights(model, prior.latent_dim)
    left, strengths, _ = np.linalg.svd(weights, full_matrices=False)
    vectors = left.T[strengths > NEGLIGIBLE * strengths.max()][:MAX_DIRECTIONS]
    spread = 1.0 if prior.distribution == "normal" else math.sqrt(1 / 3)
    directions = []
    for i, vector in enumerate(vectors):
        signed = vector * np.sign(vector[np.abs(vector).argmax()])
        values = tuple(float(f"{value:.{DIGITS}g}") for value in signed)
        name = names[i] if i < len(names) and names[i] else None
        directions.append(Direction(name=name, vector=values, spread=round(spread, DIGITS)))
    return tuple(directions)


def first_weights(model: onnx.ModelProto, latent_dim: int) -> NDArray[np.float64]:
    """Return the weights [Z, F] of the layers that take the latent, concatenated."""
    outputs = _first_outputs(model)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    points = np.eye(latent_dim, dtype=np.float32)
    once, twice = (
        np.concatenate([found.reshape(latent_dim, -1) for found in session.run(outputs, {LATENT: latents})], axis=1)
        for latents in (points, 2 * points)
    )
    weights: NDArray[np.float64] = twice.astype(np.float64) - once  # 0 for values of a one-hot code
    return weights


def _first_outputs(model: onnx.ModelProto) -> list[str]:
    """Return the outputs of the first linear layers on every path from the latent."""
    reached, outputs = {LATENT}, list[str]()
    for node in model.graph.node:  # in the order of their computation
        if not reached & set(node.input):
            continue
        if node.op_type in LINEAR:
            outputs.append(node.output[0])
        else:
            reached |= set(node.output)
    return outputs


def direction_pairs(metadata: ModelMetadata, file: Path, seed: int) -> Images:
    """Return the pairs of a seed moved along every direction by SPREADS: {domain: uint8 [B, C, H, W]}, B of both."""
    latent = draw_latent(_prior(metadata), seed)
    moves = [step * one.spread * np.array(one.vector, np.float32) for one in metadata.directions for step in SPREADS]
    rows = [latent + move for move in moves]
    return _generate(metadata, file, np.array(rows, np.float32))


def _generate(metadata: ModelMetadata, file: Path, latents: NDArray[np.float32]) -> Images:
    """Generate the pairs of latents [B, Z] by an exported generator: {domain: uint8 [B, C, H, W]}."""
    images = exported_graph(file, metadata).network(torch.from_numpy(latents))
    return {d.name: batch.permute(0, 3, 1, 2) for d, batch in zip(metadata.domains, images, strict=True)}


def write_card(file: Path, metadata: ModelMetadata) -> str:
    """Write the card of a model, and the sheet of a generator, into the folder of its versions.

    `file` is the exported model; the pairs of the sheet are those of seeds 0 and up, not chosen. A README.md that
    export did not write is kept, with its sheet; the warning is returned.
    """
    folder, is_generator = file.parents[1], metadata.kind == "generator"
    card = folder / "README.md"
    if card.exists() and WRITTEN not in card.read_text(encoding="utf-8", errors="replace"):
        return f"{card} is not what export writes, and is kept as it is: remove it to have it written anew"
    if is_generator:
        latents = latents_of_seeds(_prior(metadata), range(PAIRS)).numpy()
        save_sheet(_generate(metadata, file, latents), folder / "sheet.png", COLUMNS, 2)
    size, classes = metadata.prior and metadata.prior.latent_dim, ", ".join(metadata.classes)
    drawing = f"-o pair.png 'localhost:8000/generate?model={metadata.name}&seed=7&format=png'"
    text = CARD.format(
        written=WRITTEN,
        **metadata.model_dump(include={"name", "version", "kind", "data_license"}),
        task="pipeline_tag: unconditional-image-generation\n" if is_generator else "",
        summary=SUMMARIES[metadata.kind].format(size=size, classes=classes),
        sheet=f"\n![Pairs of seeds 0 to {PAIRS - 1}, not chosen](sheet.png)\n" if is_generator else "",
        domains="\n".join(
            f"| {d.name} | {d.height} x {d.width} x {d.channels} | {d.description} |" for d in metadata.domains
        ),
        steps=metadata.provenance.steps,
        seed=metadata.provenance.seed,
        quality="\n".join(f"| {name} | {value} |" for name, value in _figures(metadata.quality)),
        request=drawing if is_generator else f"localhost:8000/models/{metadata.name}",
    )
    write_whole(card, lambda aside: aside.write_text(text, encoding="utf-8"))
    return ""


def _figures(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every figure with the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{place}{name} ")
        else:
            yield f"{place}{name}".replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)
