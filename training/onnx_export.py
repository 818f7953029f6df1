"""A network as one self-describing ONNX file, and the proof that it computes what the network does."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from service.metadata import CLASSES, LATENT, METADATA_KEY, PREVIOUS, Domain, ModelMetadata, parse_metadata
from training.directions import with_directions
from training.errors import ExportError
from training.files import expecting
from training.losses.pixels import from_bytes, to_bytes
from training.networks.coupled import AdaptedClassifier, CoupledGenerator, latents_of_seeds
from training.pretrained.classifier import Classifier
from training.pretrained.encoder import LatentEncoder

PROOF_BATCHES = (1, 2, 7, 64)
MAX_BATCH = 64
TEMPLATE = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {inputs} ]
output [
{outputs}
]
version_policy: {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ }}
"""


def write_onnx(network: nn.Module, metadata: ModelMetadata, file: Path) -> None:
    """Write the graph of a network of the metadata's kind, with the metadata in it, a generator's with directions."""
    graph = GRAPHS[metadata.kind](network, metadata)
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
    if metadata.kind == "generator":
        metadata = with_directions(model, metadata)
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def read_metadata(file: Path) -> ModelMetadata:
    """Read the metadata of an exported model. Raises RunError if the file holds none of this version."""
    with expecting("an exported model", file):
        model = onnx.load(file, load_external_data=False)
        return parse_metadata({entry.key: entry.value for entry in model.metadata_props})


def _rename_inner(graph: Any) -> None:
    """Leave the names of outputs to them: a domain may be called as the exporter calls a value within."""
    taken = {output.name for output in graph.outputs}
    for value in (value for node in graph for value in node.outputs):
        if value.name in taken and not any(value is output for output in graph.outputs):
            value.name = f"inner_{value.name}"


def prove(network: nn.Module, metadata: ModelMetadata, file: Path) -> str:
    """Compare the file in onnxruntime with PyTorch at several batch sizes, and return a summary.

    Raises ExportError if any value differs by more than rounding explains: bytes by more than 1,
    probabilities by more than 0.0001.
    """
    graph = GRAPHS[metadata.kind](network, metadata)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differing, total, greatest = 0, 0, 0.0
    for batch in PROOF_BATCHES:
        examples = graph.examples(batch)
        with torch.inference_mode():
            expected = graph.network(*examples)
        inputs = {port.name: values.numpy() for port, values in zip(graph.inputs, examples, strict=True)}
        found = session.run([output.name for output in graph.outputs], inputs)
        for output, wanted, got in zip(graph.outputs, expected, found, strict=True):
            difference = (wanted.double() - torch.from_numpy(got).double()).abs()
            if not difference.max() <= graph.tolerance:
                raise ExportError(f"{output.name}, batch {batch}: values differ by up to {float(difference.max()):.4g}")
            greatest = max(greatest, float(difference.max()))
            differing += int((difference > 0).sum())
            total += difference.numel()
    return (
        f"onnxruntime computes what PyTorch does at batches {PROOF_BATCHES}: {differing} of {total} values "
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
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    examples: Callable[[int], tuple[Tensor, ...]]
    """Makes inputs of so many, always the same."""
    tolerance: float
    """Greatest difference between two libraries' outputs that rounding explains."""


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
        name, real = self._domain, from_bytes(images.permute(0, 3, 1, 2), self.encoder.image_range)
        drawn = self.encoder.reconstruct(name, previous)
        return (self.encoder.refine({name: real}, {name: drawn}, {name: previous})[name],)


def _of_generator(generator: nn.Module, metadata: ModelMetadata) -> Graph:
    assert isinstance(generator, CoupledGenerator)
    prior = metadata.prior
    assert prior is not None, "a generator's metadata have one"
    return Graph(
        GeneratorGraph(generator).eval(),
        (Port(LATENT, "FP32", (prior.latent_dim,)),),
        tuple(_image_port(domain) for domain in metadata.domains),
        lambda batch: (latents_of_seeds(prior, range(batch)),),
        tolerance=1,  # floats on the border of two bytes round differently
    )


def _of_classifier(classifier: nn.Module, metadata: ModelMetadata) -> Graph:
    assert isinstance(classifier, Classifier | AdaptedClassifier)
    (domain,) = metadata.domains
    return Graph(
        ClassifierGraph(classifier).eval(),
        (_image_port(domain),),
        (Port(CLASSES, "FP32", (len(metadata.classes),)),),
        lambda batch: (_noise(batch, domain),),
        tolerance=1e-4,
    )


def _of_encoder(encoder: nn.Module, metadata: ModelMetadata) -> Graph:
    assert isinstance(encoder, LatentEncoder)
    (domain,), prior = metadata.domains, metadata.prior
    assert prior is not None, "an encoder's metadata have one"
    return Graph(
        EncoderGraph(encoder, domain.name).eval(),
        (_image_port(domain), Port(PREVIOUS, "FP32", (prior.latent_dim,))),
        (Port(LATENT, "FP32", (prior.latent_dim,)),),
        lambda batch: (_noise(batch, domain), latents_of_seeds(prior, range(batch))),
        tolerance=1e-3,
    )


def _image_port(domain: Domain) -> Port:
    return Port(domain.name, "UINT8", (domain.height, domain.width, domain.channels))


def _noise(batch: int, domain: Domain) -> Tensor:
    shape, known = (batch, domain.height, domain.width, domain.channels), torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=known)


GRAPHS: dict[str, Callable[[nn.Module, ModelMetadata], Graph]] = {
    "generator": _of_generator,
    "classifier": _of_classifier,
    "encoder": _of_encoder,
}


def triton_config(name: str, graph: Graph) -> str:
    """Return the text of a model's config.pbtxt."""
    inputs = ", ".join(_port(port) for port in graph.inputs)
    outputs = ",\n".join(f"  {_port(port)}" for port in graph.outputs)
    return TEMPLATE.format(name=name, max_batch=MAX_BATCH, inputs=inputs, outputs=outputs)


def _port(port: Port) -> str:
    sides = ", ".join(map(str, port.shape))
    return f'{{ name: "{port.name}" data_type: TYPE_{port.kind} dims: [ {sides} ] }}'
