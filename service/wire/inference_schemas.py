"""Wire types of the Open Inference Protocol, version 2, with Triton's extensions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.wire.schemas import ClosedModel


class Sent(ClosedModel):
    """What a client sends, in JSON types as they are."""

    model_config = ConfigDict(strict=True)


class InputParameters(Sent):
    """Parameters of an input tensor."""

    binary_data_size: int | None = Field(
        default=None, ge=0, description="Bytes of the tensor after the JSON, in place of `data`."
    )


class InputTensor(Sent):
    """A tensor of a request: `data` as numbers, flat or nested by its shape, or binary."""

    name: Literal["latent"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=2, max_length=2, description="The number of latents, and the values of each."
    )
    datatype: Literal["FP32"]
    parameters: InputParameters | None = None
    data: list[Any] | None = None


class OutputParameters(Sent):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(
        default=None, description="Whether it is sent as bytes; otherwise as `binary_data_output` says."
    )


class RequestedOutput(Sent):
    """A domain to draw."""

    name: str
    parameters: OutputParameters | None = None


class InferParameters(Sent):
    """Parameters of a request."""

    binary_data_output: bool = Field(default=False, description="Whether outputs are sent as bytes.")
    timeout: int | None = Field(default=None, ge=1, description="Deadline in microseconds.")


class InferRequest(Sent):
    """Body of /infer, or the JSON at its start."""

    id: str | None = Field(default=None, description="Returned as it is.")
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(
        default=None, description="The domains to draw, in this order; otherwise all."
    )


class ServerLive(BaseModel):
    """Answer of /v2/health/live."""

    live: bool


class ServerReady(BaseModel):
    """Answer of /v2/health/ready."""

    ready: bool


class ServerMetadata(BaseModel):
    """Answer of /v2."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor of a model; -1 is any number of latents."""

    name: str
    datatype: Literal["FP32", "UINT8"]
    shape: list[int]


class ModelDescription(BaseModel):
    """Answer of /v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """Answer of /v2/models/{name}/ready."""

    name: str
    ready: bool


class OutputTensor(BaseModel):
    """A drawn domain: `data` is flat; binary data have their size in `parameters`."""

    name: str
    datatype: Literal["UINT8"]
    shape: list[int]
    data: list[int] | None = None
    parameters: dict[str, int] | None = None


class InferAnswer(BaseModel):
    """Answer of /infer, or the JSON at its start; `parameters` has the digest of the model that drew it."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str]
    outputs: list[OutputTensor]


class Spent(BaseModel):
    """How often something happened, and the nanoseconds that it took altogether."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """What requests went through; input and output are part of the run, and no answer is from a cache."""

    success: Spent
    fail: Spent
    queue: Spent
    compute_input: Spent
    compute_infer: Spent
    compute_output: Spent
    cache_hit: Spent
    cache_miss: Spent


class BatchStatistics(BaseModel):
    """Runs of one size."""

    batch_size: int
    compute_input: Spent
    compute_infer: Spent
    compute_output: Spent


class ModelStatistics(BaseModel):
    """What a model has done since it was loaded, for requests of every kind."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 is never.")
    inference_count: int = Field(description="Latents drawn.")
    execution_count: int = Field(description="Runs.")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class StatisticsAnswer(BaseModel):
    """Answer of /stats."""

    model_stats: list[ModelStatistics]
