"""The committed models, by kind."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from service.metadata import Kind, ModelMetadata
from training.pretrained.exported import read_metadata

MODELS = Path(__file__).parents[2] / "models"
METADATA: dict[Path, ModelMetadata] = {file: read_metadata(file) for file in sorted(MODELS.glob("*/*/model.onnx"))}


def model_files(kind: Kind) -> list[Path]:
    """Return the committed files of a kind, by name and version."""
    return [file for file, metadata in METADATA.items() if metadata.kind == kind]


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """Open a file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
