"""Wire types of answers of the Open Inference Protocol, version 2, with Triton's extensions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


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
