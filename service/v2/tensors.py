"""Tensors of the protocol: a request's bytes -> arrays, a model's outputs -> a response's bytes.

Triton's binary data extension sends JSON first and then the tensors' bytes, little-endian; a header has the length of
the JSON. Axes: B batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.options import parse_body
from service.api.schemas import MAX_LATENT_VALUE
from service.engine.onnx_model import DTYPES, Arrays, OnnxModel, Tensor
from service.errors import FieldError, InvalidRequest, TooLarge, Unsupported
from service.http.access import BINARY_HEADER
from service.v2.schemas import InferParameters, InferRequest, InputTensor, TensorParameters

MAX_JSON_VALUES = 2**18  # of all tensors of a request or a response that are JSON: a megabyte of text or two
JSON_CHUNK = 2**12  # values that are written at a time
NS_PER_JSON_VALUE, NS_PER_BINARY_VALUE = 120, 2


@dataclass(frozen=True)
class Inference:
    """A checked request: inputs [B, ...], and the outputs to return, each with whether as bytes."""

    id: str | None
    inputs: Arrays
    outputs: tuple[tuple[Tensor, bool], ...]
    timeout_s: float | None

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))

    @property
    def encode_s(self) -> float:
        """Roughly the seconds that writing the response takes."""
        costs = [
            math.prod(t.shape) * (NS_PER_BINARY_VALUE if binary else NS_PER_JSON_VALUE) for t, binary in self.outputs
        ]
        return self.size * sum(costs) * 1e-9


@dataclass(frozen=True)
class InferResponse:
    """The JSON of a response, and the bytes after it, if any output is sent so."""

    head: bytes
    tensors: bytes | None


def read_inference(content: bytes, head_length: str | None, model: OnnxModel, max_rows: int) -> Inference:
    """Parse and check a request of at most `max_rows` rows; `head_length` is the header's value.

    Raises InvalidRequest, TooLarge, Unsupported, and what parse_body raises.
    """
    length = _head_length(head_length, len(content))
    request = parse_body(InferRequest, content[:length])
    parameters = request.parameters or InferParameters()
    inference = Inference(
        id=request.id,
        inputs=_inputs(request.inputs, content[length:], model, max_rows),
        outputs=_outputs(request, model, parameters.binary_data_output),
        timeout_s=None if parameters.timeout is None else parameters.timeout / 1e6,
    )
    values = inference.size * sum(math.prod(t.shape) for t, binary in inference.outputs if not binary)
    if values > MAX_JSON_VALUES:
        detail = f"as JSON, a response has at most {MAX_JSON_VALUES} values, and this would have {values}"
        wrong = FieldError("/parameters/binary_data_output", parameters.binary_data_output, "true")
        raise TooLarge(f"{detail}; request binary data, or fewer rows", [wrong])
    return inference


def write_response(inference: Inference, model: OnnxModel, arrays: Arrays) -> Generator[None, None, InferResponse]:
    """Write outputs [B, ...], as flat lists of numbers or as bytes after the JSON; yield after every part."""
    outputs, tensors = list[str](), list[bytes]()
    for tensor, binary in inference.outputs:
        array = arrays[tensor.name]
        about: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if binary:
            tensors.append(array.tobytes())
            outputs.append(_dump(about | {"parameters": {"binary_data_size": array.nbytes}}))
            continue
        flat, parts = array.ravel(), list[str]()
        for at in range(0, flat.size, JSON_CHUNK):
            parts.append(_dump(flat[at : at + JSON_CHUNK].tolist())[1:-1])
            yield
        outputs.append(f'{_dump(about)[:-1]},"data":[{",".join(parts)}]}}')
    head = {"model_name": model.name, "model_version": model.version}
    head |= {} if inference.id is None else {"id": inference.id}
    start = _dump(head | {"parameters": {"digest": model.digest}})[:-1]
    body = f'{start},"outputs":[{",".join(outputs)}]}}'.encode()
    return InferResponse(body, b"".join(tensors) if tensors else None)


def wrong_field(pointer: str, value: Any, allowed: str | list[str]) -> InvalidRequest:
    """Return the error for a wrong field of the body."""
    text = allowed if isinstance(allowed, str) else ", ".join(allowed)
    return InvalidRequest(f"body {pointer}: allowed is {text}", [FieldError(pointer, value, allowed)])


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _head_length(given: str | None, whole: int) -> int:
    if given is None:
        return whole
    if not (given.isascii() and given.isdecimal() and len(given) < 16 and int(given) <= whole):
        wrong = FieldError(f"/{BINARY_HEADER.lower()}", given, f"a whole number up to {whole}", "header")
        raise InvalidRequest(f"{BINARY_HEADER}: the body has {whole} bytes", [wrong])
    return int(given)


def _inputs(sent: Sequence[InputTensor], binary: bytes, model: OnnxModel, max_rows: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of all inputs; `binary` is what came after the JSON."""
    expected = {tensor.name: tensor for tensor in model.inputs}
    names = [tensor.name for tensor in sent]
    for i, name in enumerate(names):
        if name not in expected or name in names[:i]:
            raise wrong_field(f"/inputs/{i}/name", name, list(expected))
    if missing := expected.keys() - set(names):
        raise wrong_field("/inputs", names, f"one of each: {', '.join(expected)} (missing {', '.join(missing)})")
    announced = [_binary_size(tensor, i) for i, tensor in enumerate(sent)]
    if sum(announced) != len(binary):
        i = next((i for i, size in enumerate(announced) if size), 0)
        found = f"{announced[i]}, with {len(binary)} bytes after the JSON"
        pointer = f"/inputs/{i}/parameters/binary_data_size"
        raise wrong_field(pointer, found, "the number of bytes after the JSON")
    for i, tensor in enumerate(sent):
        _check_shape(tensor, expected[tensor.name], i, max_rows, sent[0].shape[0])
    if (values := sum(math.prod(tensor.shape) for tensor in sent if tensor.data is not None)) > MAX_JSON_VALUES:
        wrong = FieldError("/inputs", f"{values} values", f"at most {MAX_JSON_VALUES} as JSON")
        raise TooLarge(f"as JSON, a request has at most {MAX_JSON_VALUES} values; send binary data", [wrong])
    arrays, offset = dict[str, NDArray[Any]](), 0
    for i, (tensor, size) in enumerate(zip(sent, announced, strict=True)):
        data = binary[offset : offset + size] if tensor.data is None else tensor.data
        arrays[tensor.name] = _array(tensor, i, data)
        offset += size
    return arrays


def _binary_size(tensor: InputTensor, i: int) -> int:
    """Return the bytes of a tensor after the JSON; 0 if its data are in it."""
    _check_supported(tensor.parameters)
    size = (tensor.parameters and tensor.parameters.binary_data_size) or 0
    if (tensor.data is None) == (size == 0):
        raise wrong_field(f"/inputs/{i}", "neither" if size == 0 else "both", "data or binary_data_size")
    return size


def _check_shape(tensor: InputTensor, expected: Tensor, i: int, max_rows: int, rows: int) -> None:
    if tensor.datatype != expected.datatype:
        raise wrong_field(f"/inputs/{i}/datatype", tensor.datatype, expected.datatype)
    if tuple(tensor.shape[1:]) != expected.shape:
        wanted = f"[rows, {', '.join(map(str, expected.shape))}]"
        raise wrong_field(f"/inputs/{i}/shape", str(tensor.shape), wanted)
    if tensor.shape[0] > max_rows:
        wrong = FieldError(f"/inputs/{i}/shape/0", tensor.shape[0], f"at most {max_rows}")
        raise TooLarge(f"one request has at most {max_rows} rows; send several", [wrong])
    if tensor.shape[0] != rows:
        raise wrong_field(f"/inputs/{i}/shape/0", tensor.shape[0], f"{rows}, as in the first input")


def _array(tensor: InputTensor, i: int, values: bytes | list[Any]) -> NDArray[Any]:
    """Return the values of a tensor whose shape is checked, each finite and within bounds."""
    dtype, needed = np.dtype(DTYPES[tensor.datatype][0]).newbyteorder("<"), math.prod(tensor.shape)
    if isinstance(values, bytes):
        if len(values) != needed * dtype.itemsize:
            pointer = f"/inputs/{i}/parameters/binary_data_size"
            raise wrong_field(pointer, len(values), f"{needed * dtype.itemsize} for the shape {tensor.shape}")
        array = np.frombuffer(values, dtype)
    else:
        array = _from_list(tensor, i, values, needed)
    if dtype.kind == "f":
        inside = np.abs(array) <= MAX_LATENT_VALUE  # NaN is not
        if not inside.all():
            place = int(np.argmin(inside))
            raise _out_of_bounds(tensor, i, place, float(array[place]))
    return array.astype(dtype.newbyteorder("=")).reshape(tensor.shape)


def _from_list(tensor: InputTensor, i: int, data: list[Any], needed: int) -> NDArray[Any]:
    for depth in range(1, len(tensor.shape)):  # flat, or nested by its shape
        if len(data) == math.prod(tensor.shape[:depth]) and _are_rows(data):
            data = list(chain.from_iterable(data))
    if len(data) != needed:
        found, wanted = f"{len(data)} values", f"{needed} values for the shape {tensor.shape}"
        raise wrong_field(f"/inputs/{i}/data", found, wanted)
    kinds, low, high = (
        ((int, float), -MAX_LATENT_VALUE, MAX_LATENT_VALUE) if tensor.datatype == "FP32" else ((int,), 0, 255)
    )
    for place, value in enumerate(data):
        if type(value) not in kinds or not low <= value <= high:
            raise _out_of_bounds(tensor, i, place, value)
    return np.array(data, np.float64 if tensor.datatype == "FP32" else np.uint8)


def _are_rows(data: list[Any]) -> bool:
    return isinstance(data[0], list) and all(isinstance(row, list) and len(row) == len(data[0]) for row in data)


def _out_of_bounds(tensor: InputTensor, i: int, place: int, value: Any) -> InvalidRequest:
    bound = f"{MAX_LATENT_VALUE:g}"
    allowed = f"a number from -{bound} to {bound}" if tensor.datatype == "FP32" else "a whole number from 0 to 255"
    return wrong_field(f"/inputs/{i}/data/{place}", value, allowed)


def _outputs(request: InferRequest, model: OnnxModel, binary: bool) -> tuple[tuple[Tensor, bool], ...]:
    """Return the outputs to send, each known and named once, and whether as bytes."""
    known = {tensor.name: tensor for tensor in model.outputs}
    if not request.outputs:
        return tuple((tensor, binary) for tensor in model.outputs)
    chosen, names = list[tuple[Tensor, bool]](), [output.name for output in request.outputs]
    for i, output in enumerate(request.outputs):
        if output.name not in known or output.name in names[:i]:
            raise wrong_field(f"/outputs/{i}/name", output.name, list(known))
        _check_supported(output.parameters)
        own = output.parameters.binary_data if output.parameters is not None else None
        chosen.append((known[output.name], binary if own is None else own))
    return tuple(chosen)


def _check_supported(parameters: TensorParameters | None) -> None:
    """Raise Unsupported for parameters that would change what a tensor means."""
    if parameters is not None and parameters.shared_memory_region is not None:
        raise shared_memory_unsupported()
    if parameters is not None and parameters.classification:
        raise Unsupported("classification of outputs is not supported; an output is returned as its values")


def shared_memory_unsupported() -> Unsupported:
    """Return the error for a request that uses shared memory."""
    return Unsupported("shared memory is not supported; send tensors in the body, as JSON or binary data")
