"""A generator as one self-describing ONNX file, and the proof that it draws what the network draws.

The graph takes `latent`, float32 [B, Z], and puts out uint8 [B, H, W, C] for each domain, named by it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from service.metadata import LATENT_INPUT, METADATA_KEY, ModelMetadata
from training.errors import ExportError
from training.networks import CoupledGenerator
from training.samples import latents_of_seeds, to_bytes

PROOF_BATCHES = (1, 2, 7, 64)


class Drawing(nn.Module):
    """A generator with the way to bytes behind it: latents [B, Z] -> a tuple of uint8 [B, H, W, C]."""

    def __init__(self, generator: CoupledGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Draw pairs as the service sends them."""
        images = self.generator(latent).values()
        return tuple(to_bytes(batch, self.generator.image_range).permute(0, 2, 3, 1) for batch in images)


def write_onnx(generator: CoupledGenerator, metadata: ModelMetadata, file: Path) -> None:
    """Write the graph of a generator in evaluation mode, with the metadata in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated functions
        program = torch.onnx.export(
            Drawing(generator).eval(),
            (torch.zeros(2, metadata.prior.latent_dim),),  # a batch of 1 would be taken for a constant
            input_names=[LATENT_INPUT],
            output_names=[domain.name for domain in metadata.domains],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    for node in model.graph.node:  # traces of the source files that every operation came from
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def prove(generator: CoupledGenerator, metadata: ModelMetadata, file: Path) -> str:
    """Compare the file in onnxruntime with PyTorch at several batch sizes, and say how they compare.

    Raises ExportError if any byte is more than 1 apart: floats on the border of two bytes round differently.
    """
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    drawing = Drawing(generator).eval()
    apart = total = 0
    for batch in PROOF_BATCHES:
        latents = latents_of_seeds(metadata.prior, range(batch))
        with torch.inference_mode():
            expected = drawing(latents)
        drawn = session.run([domain.name for domain in metadata.domains], {LATENT_INPUT: latents.numpy()})
        for domain, wanted, got in zip(metadata.domains, expected, drawn, strict=True):
            difference = (wanted.int() - torch.from_numpy(got).int()).abs()
            if difference.max() > 1:
                raise ExportError(
                    f"{domain.name}, batch {batch}: bytes differ by up to {int(difference.max())}"
                )
            apart += int(difference.sum())
            total += difference.numel()
    return f"onnxruntime draws what PyTorch does at batches {PROOF_BATCHES}, {apart} of {total} bytes 1 apart"
