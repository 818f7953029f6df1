"""Tensors of the Open Inference Protocol: a request's bytes -> latents, images -> an answer's bytes.

Triton's binary data extension sends JSON first and then the tensors' bytes, little-endian; a header has the
length of the JSON. Axes: B batch, Z latent, H height, W width, C channels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from service.engine.onnx_model import Images, Latents, OnnxModel
from service.errors import FieldError, InvalidRequest
from service.wire.inference_input import check_shape, read_latents, wrong_field
from service.wire.inference_schemas import InferParameters, InferRequest
from service.wire.parsing import parse_body

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Inference:
    """A checked request: latents [B, Z], and the outputs to send, each with whether as bytes."""

    id: str | None
    latents: Latents
    outputs: tuple[tuple[str, bool], ...]
    timeout_s: float | None


@dataclass(frozen=True)
class InferenceAnswer:
    """The JSON of an answer, and the bytes after it, if any output is sent so."""

    head: bytes
    tensors: bytes | None


def read_inference(content: bytes, head_length: str | None, model: OnnxModel, most: int) -> Inference:
    """Read and check a request for at most `most` latents; `head_length` is the header's value.

    Raises InvalidRequest, TooLarge, and what parse_body raises.
    """
    length = _head_length(head_length, len(content))
    request = parse_body(InferRequest, content[:length])
    tensor, parameters = request.inputs[0], request.parameters or InferParameters()
    check_shape(tensor, model.metadata.prior.latent_dim, most)
    return Inference(
        id=request.id,
        latents=read_latents(tensor, content[length:]),
        outputs=_outputs(request, model, parameters.binary_data_output),
        timeout_s=None if parameters.timeout is None else parameters.timeout / 1e6,
    )


def write_inference(inference: Inference, model: OnnxModel, images: Images) -> InferenceAnswer:
    """Render images, uint8 [B, H, W, C] a domain: as flat lists of numbers, or as bytes after the JSON."""
    outputs, tensors = [], []
    for name, binary in inference.outputs:
        image = images[name]
        output: dict[str, Any] = {"name": name, "datatype": "UINT8", "shape": image.shape}
        if binary:
            tensors.append(image.tobytes())
            output["parameters"] = {"binary_data_size": image.nbytes}
        else:
            output["data"] = image.ravel().tolist()
        outputs.append(output)
    head = {"model_name": model.name, "model_version": model.version}
    head |= {} if inference.id is None else {"id": inference.id}
    body = head | {"parameters": {"digest": model.digest}, "outputs": outputs}
    return InferenceAnswer(
        json.dumps(body, separators=(",", ":")).encode(), b"".join(tensors) if tensors else None
    )


def _head_length(given: str | None, whole: int) -> int:
    if given is None:
        return whole
    if not (given.isascii() and given.isdecimal() and len(given) < 16 and int(given) <= whole):
        wrong = FieldError(f"/{HEADER_LENGTH.lower()}", given, f"a whole number up to {whole}", "header")
        raise InvalidRequest(f"{HEADER_LENGTH}: the body has {whole} bytes", [wrong])
    return int(given)


def _outputs(request: InferRequest, model: OnnxModel, binary: bool) -> tuple[tuple[str, bool], ...]:
    """Return the domains to send, each known and named once, and whether as bytes."""
    if not request.outputs:
        return tuple((name, binary) for name in model.domains)
    names = [output.name for output in request.outputs]
    for i, name in enumerate(names):
        if name not in model.domains or name in names[:i]:
            raise wrong_field(f"/outputs/{i}/name", name, list(model.domains))
    chosen = [output.parameters.binary_data if output.parameters else None for output in request.outputs]
    return tuple(
        (name, binary if choice is None else choice) for name, choice in zip(names, chosen, strict=True)
    )
