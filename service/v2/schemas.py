"""Types of the protocol's requests and responses.

Requests ignore what they do not know: clients of Triton, MLServer and KServe each send fields of their own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import ResponseModel

MAX_TIMEOUT_US = 10**15  # some thirty years
MAX_TENSORS = 64


class _Request(BaseModel):
    """A request body: JSON types as they are, unknown fields ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)


class TensorParameters(_Request):
    """Parameters of a tensor."""

    binary_data_size: int | None = Field(default=None, ge=0)
    """Bytes of the tensor after the JSON, instead of `data`."""
    binary_data: bool | None = None
    """Send an output as bytes; otherwise as `binary_data_output` says."""
    shared_memory_region: Any = None
    """Refused: there is no shared memory."""
    classification: Any = None
    """Refused: an output is returned as its values."""


class InputTensor(_Request):
    """A tensor of a request: `data` as numbers, flat or nested by its shape, or binary."""

    name: str
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=2, max_length=4)
    """The number of rows, and the shape of each."""
    datatype: Literal["FP32", "UINT8"]
    parameters: TensorParameters | None = None
    data: list[Any] | None = None


class RequestedOutput(_Request):
    """An output to return."""

    name: str
    parameters: TensorParameters | None = None


class InferParameters(_Request):
    """Parameters of a request."""

    binary_data_output: bool | None = None
    """Send outputs as bytes."""
    timeout: int | None = Field(default=None, ge=0, le=MAX_TIMEOUT_US)
    """Deadline in microseconds; 0 is none of its own, as Triton has it."""


class InferRequest(_Request):
    """Body of /infer, or the JSON at its start."""

    id: str | None = None
    """Returned as it is."""
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=MAX_TENSORS, fail_fast=True)
    outputs: list[RequestedOutput] | None = Field(default=None, max_length=MAX_TENSORS, fail_fast=True)
    """The outputs to return, in this order; otherwise all."""


class IndexRequest(_Request):
    """Body of /v2/repository/index."""

    ready: bool | None = None
    """List served models only."""


class ControlRequest(_Request):
    """Body of /load and /unload. The folder says what is loaded: files in `parameters` are refused."""

    parameters: dict[str, Any] | None = None


class ServerLive(ResponseModel):
    """Response of /v2/health/live."""

    live: bool


class ServerReady(ResponseModel):
    """Response of /v2/health/ready."""

    ready: bool


class ServerMetadata(ResponseModel):
    """Response of /v2."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(ResponseModel):
    """Response of /v2/models, as KServe's own server has it."""

    models: list[str]


class TensorMetadata(ResponseModel):
    """A tensor of a model; -1 is any number of rows."""

    name: str
    datatype: Literal["FP32", "UINT8"]
    shape: list[int]


class ModelDescription(ResponseModel):
    """Response of /v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(ResponseModel):
    """A tensor in Triton's model configuration."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(ResponseModel):
    """Response of /v2/models/{name}/config, the part of Triton's model configuration that holds here."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    version_policy: dict[str, Any]
    dynamic_batching: dict[str, Any]


class ModelReady(ResponseModel):
    """Response of /v2/models/{name}/ready."""

    name: str
    ready: bool


class OutputTensor(TensorMetadata):
    """An output: `data` is flat; binary data have their size in `parameters`."""

    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class InferResponse(ResponseModel):
    """Response of /infer, or the JSON at its start; `parameters` has the digest of the model."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str]
    outputs: list[OutputTensor]


class Tally(ResponseModel):
    """Number of events, and the nanoseconds that they took altogether."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(ResponseModel):
    """Stages of requests; input and output are part of the run, and no response is from a cache."""

    success: Tally
    fail: Tally
    queue: Tally
    compute_infer: Tally
    compute_input: Tally = Tally()
    compute_output: Tally = Tally()
    cache_hit: Tally = Tally()
    cache_miss: Tally = Tally()


class BatchStatistics(ResponseModel):
    """Runs of one size."""

    batch_size: int
    compute_infer: Tally
    compute_input: Tally = Tally()
    compute_output: Tally = Tally()


class ModelStatistics(ResponseModel):
    """Counts of all processes for a version of a model, which one request may ask for several times."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since 1970; 0 is never."""
    inference_count: int
    """Rows computed."""
    execution_count: int
    """Runs."""
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class StatisticsResponse(ResponseModel):
    """Response of /stats."""

    model_stats: list[ModelStatistics]


class IndexEntry(ResponseModel):
    """A version of a model in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
    """Reason that it is not ready."""
