"""Tensors of the protocol: a request's bytes -> arrays, a model's outputs -> a response's bytes.

Triton's binary data extension sends JSON first and then the tensors' bytes, little-endian; a header has the length of
the JSON. Axes: B batch.
"""

from __future__ import annotations

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
from service.generation.pairs import dump
from service.http.access import BINARY_HEADER
from service.v2.schemas import InferParameters, InferRequest, InputTensor, TensorParameters

MAX_JSON_VALUES = 2**18  # of all tensors of a request or a response that are JSON: a megabyte of text or two
JSON_CHUNK = 2**12  # values that are written at a time
NS_PER_JSON_VALUE, NS_PER_BINARY_VALUE = 120, 2
SHARED_MEMORY = "shared memory is not supported; send tensors in the body, as JSON or binary data"


@dataclass(frozen=True)
class Inference:
    """A checked request: inputs [B, ...], and the outputs to return, each with True if as bytes."""

    id: str | None
    inputs: Arrays
    outputs: Sequence[tuple[Tensor, bool]]
    timeout_s: float | None

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))

    @property
    def encode_s(self) -> float:
        """Roughly the seconds that writing the response takes."""
        return (self.values(True) * NS_PER_BINARY_VALUE + self.values(False) * NS_PER_JSON_VALUE) * 1e-9

    def values(self, binary: bool) -> int:
        """Return the number of values of the outputs that are sent as bytes, or of the others."""
        return self.size * sum(math.prod(tensor.shape) for tensor, as_bytes in self.outputs if as_bytes == binary)


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
        outputs=_outputs(request, model, parameters.binary_data_output or False),
        timeout_s=parameters.timeout / 1e6 if parameters.timeout else None,
    )
    if (values := inference.values(binary=False)) > MAX_JSON_VALUES:
        detail = f"as JSON, a response has at most {MAX_JSON_VALUES} values, and this would have {values}"
        wrong = FieldError("/parameters/binary_data_output", parameters.binary_data_output, "true")
        raise TooLarge(f"{detail}; request binary data, or fewer rows", [wrong])
    return inference


def write_response(
    inference: Inference, model: OnnxModel, arrays: Arrays
) -> Generator[None, None, tuple[bytes, bytes | None]]:
    """Return the JSON of a response, and the bytes after it if any output is sent so; yield after every part.

    Outputs [B, ...] in the JSON are flat lists of numbers.
    """
    outputs, tensors = list[str](), list[bytes]()
    for tensor, binary in inference.outputs:
        array = arrays[tensor.name]
        about: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if binary:
            tensors.append(array.tobytes())
            outputs.append(dump(about | {"parameters": {"binary_data_size": array.nbytes}}))
            continue
        flat, parts = array.ravel(), list[str]()
        for at in range(0, flat.size, JSON_CHUNK):
            parts.append(dump(flat[at : at + JSON_CHUNK].tolist())[1:-1])
            yield
        outputs.append(f'{dump(about)[:-1]},"data":[{",".join(parts)}]}}')
    head = {"model_name": model.name, "model_version": model.version}
    head |= {} if inference.id is None else {"id": inference.id}
    start = dump(head | {"parameters": {"digest": model.digest}})[:-1]
    body = f'{start},"outputs":[{",".join(outputs)}]}}'.encode()
    return body, b"".join(tensors) if tensors else None


def _wrong(pointer: str, value: Any, allowed: str | list[str]) -> InvalidRequest:
    """Return the error for a wrong field of the body."""
    text = allowed if isinstance(allowed, str) else ", ".join(allowed)
    return InvalidRequest(f"body {pointer}: allowed is {text}", [FieldError(pointer, value, allowed)])


def _head_length(given: str | None, whole: int) -> int:
    if given is None:
        return whole
    if not (given.isascii() and given.isdecimal() and len(given) < 16 and int(given) <= whole):
        wrong = FieldError(f"/{BINARY_HEADER.lower()}", given, f"a whole number up to {whole}", "header")
        raise InvalidRequest(f"{BINARY_HEADER}: the body has {whole} bytes", [wrong])
    return int(given)


def _check_names(field: str, names: list[str], known: list[str]) -> None:
    """Check that tensors are known and named once."""
    for i, name in enumerate(names):
        if name not in known:
            raise _wrong(f"/{field}/{i}/name", name, known)
        if name in names[:i]:
            raise _wrong(f"/{field}/{i}/name", name, f"each name once, of {', '.join(known)}")


def _check_parameters(parameters: TensorParameters | None) -> None:
    """Raise Unsupported for parameters that would change what a tensor means."""
    if parameters is not None and parameters.shared_memory_region is not None:
        raise Unsupported(SHARED_MEMORY)
    if parameters is not None and parameters.classification:
        raise Unsupported("classification of outputs is not supported; an output is returned as its values")


def _inputs(sent: Sequence[InputTensor], binary: bytes, model: OnnxModel, max_rows: int) -> Arrays:
    """Return the arrays of all inputs; `binary` is what came after the JSON."""
    expected, names = {tensor.name: tensor for tensor in model.inputs}, [tensor.name for tensor in sent]
    _check_names("inputs", names, list(expected))
    if missing := [name for name in expected if name not in names]:
        raise _wrong("/inputs", names, f"one of each: {', '.join(expected)} (missing {', '.join(missing)})")
    sizes = [(tensor.parameters and tensor.parameters.binary_data_size) or 0 for tensor in sent]
    for i, (tensor, size) in enumerate(zip(sent, sizes, strict=True)):
        _check_input(tensor, size, expected[tensor.name], i, sent[0].shape[0])
    if (rows := sent[0].shape[0]) > max_rows:
        wrong = FieldError("/inputs/0/shape/0", rows, f"at most {max_rows}")
        raise TooLarge(f"one request has at most {max_rows} rows; send several", [wrong])
    if sum(sizes) != len(binary):
        first = next((i for i, size in enumerate(sizes) if size), 0)
        found = f"{sizes[first]}, with {len(binary)} bytes after the JSON"
        raise _wrong(f"/inputs/{first}/parameters/binary_data_size", found, "the number of bytes after the JSON")
    if (values := sum(math.prod(tensor.shape) for tensor in sent if tensor.data is not None)) > MAX_JSON_VALUES:
        wrong = FieldError("/inputs", f"{values} values", f"at most {MAX_JSON_VALUES} as JSON")
        raise TooLarge(f"as JSON, a request has at most {MAX_JSON_VALUES} values; send binary data", [wrong])
    arrays, offset = dict[str, NDArray[Any]](), 0
    for i, (tensor, size) in enumerate(zip(sent, sizes, strict=True)):
        part = binary[offset : (offset := offset + size)]
        array = _from_bytes(tensor, i, part) if tensor.data is None else _from_list(tensor, i, tensor.data)
        arrays[tensor.name] = array.reshape(tensor.shape)
    return arrays


def _check_input(tensor: InputTensor, size: int, expected: Tensor, i: int, rows: int) -> None:
    """Check all but the values of an input, `size` bytes of which come after the JSON."""
    _check_parameters(tensor.parameters)
    if (tensor.data is None) == (size == 0):
        raise _wrong(f"/inputs/{i}", "neither" if size == 0 else "both", "data or binary_data_size")
    if tensor.datatype != expected.datatype:
        raise _wrong(f"/inputs/{i}/datatype", tensor.datatype, expected.datatype)
    if tuple(tensor.shape[1:]) != expected.shape:
        raise _wrong(f"/inputs/{i}/shape", str(tensor.shape), f"[rows, {', '.join(map(str, expected.shape))}]")
    if tensor.shape[0] != rows:
        raise _wrong(f"/inputs/{i}/shape/0", tensor.shape[0], f"{rows}, as in the first input")


def _from_bytes(tensor: InputTensor, i: int, data: bytes) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[tensor.datatype][0])
    if len(data) != (needed := math.prod(tensor.shape) * dtype.itemsize):
        pointer = f"/inputs/{i}/parameters/binary_data_size"
        raise _wrong(pointer, len(data), f"{needed} for the shape {tensor.shape}")
    array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)
    if dtype.kind == "f" and not (inside := np.abs(array) <= MAX_LATENT_VALUE).all():  # NaN is not
        place = int(np.argmin(inside))
        raise _out_of_bounds(tensor, i, place, float(array[place]))
    return array


def _from_list(tensor: InputTensor, i: int, data: list[Any]) -> NDArray[Any]:
    for depth in range(1, len(tensor.shape)):  # flat, or nested by its shape
        if len(data) == math.prod(tensor.shape[:depth]) and _are_rows(data):
            data = list(chain.from_iterable(data))
    if len(data) != (needed := math.prod(tensor.shape)):
        raise _wrong(f"/inputs/{i}/data", f"{len(data)} values", f"{needed} values for the shape {tensor.shape}")
    is_float = tensor.datatype == "FP32"
    low, high = (-MAX_LATENT_VALUE, MAX_LATENT_VALUE) if is_float else (0, 255)
    for place, value in enumerate(data):
        if not (type(value) is int or (is_float and type(value) is float)) or not low <= value <= high:
            raise _out_of_bounds(tensor, i, place, value)
    return np.array(data, DTYPES[tensor.datatype][0])


def _are_rows(data: list[Any]) -> bool:
    return isinstance(data[0], list) and all(isinstance(row, list) and len(row) == len(data[0]) for row in data)


def _out_of_bounds(tensor: InputTensor, i: int, place: int, value: Any) -> InvalidRequest:
    bound = f"{MAX_LATENT_VALUE:g}"
    allowed = f"a number from -{bound} to {bound}" if tensor.datatype == "FP32" else "a whole number from 0 to 255"
    return _wrong(f"/inputs/{i}/data/{place}", value, allowed)


def _outputs(request: InferRequest, model: OnnxModel, binary: bool) -> list[tuple[Tensor, bool]]:
    """Return the outputs to send, each with True if as bytes."""
    if not request.outputs:
        return [(tensor, binary) for tensor in model.outputs]
    known = {tensor.name: tensor for tensor in model.outputs}
    _check_names("outputs", [output.name for output in request.outputs], list(known))
    chosen = list[tuple[Tensor, bool]]()
    for output in request.outputs:
        _check_parameters(output.parameters)
        own = output.parameters.binary_data if output.parameters is not None else None
        chosen.append((known[output.name], binary if own is None else own))
    return chosen
