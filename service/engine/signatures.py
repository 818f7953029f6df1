"""What a model file says of itself, and whether its graph is like that."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from service.engine.sessions import ModelRefused
from service.metadata import LATENT_INPUT, MetadataError, ModelMetadata, parse_metadata


def read_metadata(session: ort.InferenceSession) -> ModelMetadata:
    """Return what a file says of itself. Raises ModelRefused."""
    try:
        return parse_metadata(session.get_modelmeta().custom_metadata_map)
    except MetadataError as error:
        raise ModelRefused(str(error)) from error
    except UnicodeDecodeError as error:
        raise ModelRefused(f"its metadata is not UTF-8: {error}") from error


def check_signature(session: ort.InferenceSession, metadata: ModelMetadata) -> None:
    """Compare what the graph declares with what the metadata promises. Raises ModelRefused."""
    domains = metadata.domains
    _check_names("inputs", [LATENT_INPUT], [node.name for node in session.get_inputs()])
    _check_names(
        "outputs", [domain.name for domain in domains], [node.name for node in session.get_outputs()]
    )
    _check_tensor(session.get_inputs()[0], "tensor(float)", [metadata.prior.latent_dim])
    outputs = {node.name: node for node in session.get_outputs()}
    for domain in domains:
        _check_tensor(outputs[domain.name], "tensor(uint8)", [domain.height, domain.width, domain.channels])


def _check_names(what: str, promised: list[str], found: list[str]) -> None:
    if sorted(promised) != sorted(found):
        raise ModelRefused(f"the graph's {what} are {found}; the metadata promises {promised}")


def _check_tensor(node: Any, kind: str, shape: list[int]) -> None:
    """Check an input or output; sizes that the graph leaves open are checked by the warm-up."""
    differs = len(node.shape) != len(shape) + 1 or any(
        isinstance(found, int) and found != size for found, size in zip(node.shape[1:], shape, strict=True)
    )
    if node.type != kind or differs or isinstance(node.shape[0], int):
        raise ModelRefused(
            f"'{node.name}' is {node.type} {node.shape}; the metadata promises {kind} {['batch', *shape]}"
        )
