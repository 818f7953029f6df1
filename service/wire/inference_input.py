"""The input of the Open Inference Protocol: a tensor as it was sent -> latents, checked.

Axes: B batch, Z latent.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from service.engine.onnx_model import Latents
from service.errors import FieldError, InvalidRequest, TooLarge
from service.wire.fields import MAX_LATENT_VALUE
from service.wire.inference_schemas import InputTensor


def check_shape(tensor: InputTensor, size: int, most: int) -> None:
    """Check that a tensor has at most `most` latents of `size` values. Raises InvalidRequest and TooLarge."""
    if tensor.shape[1] != size:
        raise wrong_field("/inputs/0/shape/1", tensor.shape[1], f"{size}, the model's latent_dim")
    if tensor.shape[0] > most:
        wrong = FieldError("/inputs/0/shape/0", tensor.shape[0], f"at most {most}")
        raise TooLarge(f"one answer has at most {most} pairs; ask several times", [wrong])


def read_latents(tensor: InputTensor, binary: bytes) -> Latents:
    """Return the latents [B, Z] of a checked tensor; `binary` is what came after the JSON.

    Raises InvalidRequest where there are too few or too many values, or one is not finite or out of bounds.
    """
    announced = (tensor.parameters and tensor.parameters.binary_data_size) or 0
    if (tensor.data is None) == (announced == 0):
        raise wrong_field("/inputs/0", "neither" if announced == 0 else "both", "data or binary_data_size")
    if announced != len(binary):
        found = f"{announced}, with {len(binary)} bytes after the JSON"
        pointer = "/inputs/0/parameters/binary_data_size"
        raise wrong_field(pointer, found, "the number of bytes after the JSON")
    values = _from_bytes(tensor, binary) if tensor.data is None else _from_list(tensor, tensor.data)
    return np.array(values, np.float32).reshape(tensor.shape)


def wrong_field(pointer: str, value: Any, allowed: str | list[str]) -> InvalidRequest:
    """Say that a field of the body is wrong, and what is allowed."""
    text = allowed if isinstance(allowed, str) else ", ".join(allowed)
    return InvalidRequest(f"body {pointer}: allowed is {text}", [FieldError(pointer, value, allowed)])


def _from_bytes(tensor: InputTensor, binary: bytes) -> Latents:
    needed = 4 * tensor.shape[0] * tensor.shape[1]
    if len(binary) != needed:
        pointer = "/inputs/0/parameters/binary_data_size"
        raise wrong_field(pointer, len(binary), f"{needed} for the shape {tensor.shape}")
    values = np.frombuffer(binary, "<f4")
    inside = np.abs(values) <= MAX_LATENT_VALUE  # NaN is not
    if not inside.all():
        place = int(np.argmin(inside))
        raise _outside(place, float(values[place]))
    return values


def _from_list(tensor: InputTensor, data: list[Any]) -> list[float]:
    rows, size = tensor.shape
    if all(isinstance(row, list) and len(row) == size for row in data):
        data = list(chain.from_iterable(data))
    if len(data) != rows * size:
        found, needed = f"{len(data)} values", f"{rows * size} values for the shape {tensor.shape}"
        raise wrong_field("/inputs/0/data", found, needed)
    for place, value in enumerate(data):
        if type(value) not in (int, float) or not abs(value) <= MAX_LATENT_VALUE:
            raise _outside(place, value)
    return data


def _outside(place: int, value: Any) -> InvalidRequest:
    allowed = f"a number from {-MAX_LATENT_VALUE:g} to {MAX_LATENT_VALUE:g}"
    return wrong_field(f"/inputs/0/data/{place}", value, allowed)
