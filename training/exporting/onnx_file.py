"""A network as one self-describing ONNX file, and the proof that it computes what the network does."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import nn

from service.metadata import METADATA_KEY, ModelMetadata, parse_metadata
from training.errors import ExportError
from training.exporting.graphs import GRAPHS
from training.files import expecting

PROOF_BATCHES = (1, 2, 7, 64)


def write_onnx(network: nn.Module, metadata: ModelMetadata, file: Path) -> None:
    """Write the graph of a network of the metadata's kind, with the metadata in it."""
    graph = GRAPHS[metadata.kind](network, metadata)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated functions
        program = torch.onnx.export(
            graph.network,
            (graph.examples(2),),  # a batch of 1 would be taken for a constant
            input_names=[graph.input.name],
            output_names=[output.name for output in graph.outputs],
            dynamic_shapes=({0: "batch"},),
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
    """Compare the file in onnxruntime with PyTorch at several batch sizes, and say how they compare.

    Raises ExportError if any value is further apart than rounding explains: bytes by more than 1,
    probabilities by more than 0.0001.
    """
    graph = GRAPHS[metadata.kind](network, metadata)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    apart, total, greatest = 0, 0, 0.0
    for batch in PROOF_BATCHES:
        examples = graph.examples(batch)
        with torch.inference_mode():
            expected = graph.network(examples)
        found = session.run([output.name for output in graph.outputs], {graph.input.name: examples.numpy()})
        for output, wanted, got in zip(graph.outputs, expected, found, strict=True):
            difference = (wanted.double() - torch.from_numpy(got).double()).abs()
            if not difference.max() <= graph.tolerance:
                raise ExportError(f"{output.name}, batch {batch}: values differ by up to {float(difference.max()):.4g}")
            greatest = max(greatest, float(difference.max()))
            apart += int((difference > 0).sum())
            total += difference.numel()
    return (
        f"onnxruntime computes what PyTorch does at batches {PROOF_BATCHES}: {apart} of {total} values "
        f"differ, by {greatest:.2g} at most"
    )
