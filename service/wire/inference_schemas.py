"""Wire types of requests of the Open Inference Protocol, version 2, with Triton's extensions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from service.wire.fields import ClosedModel

LONGEST_US = 10**15  # some thirty years


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
    timeout: int | None = Field(default=None, ge=1, le=LONGEST_US, description="Deadline in microseconds.")


class InferRequest(Sent):
    """Body of /infer, or the JSON at its start."""

    id: str | None = Field(default=None, description="Returned as it is.")
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(
        default=None, fail_fast=True, description="The domains to draw, in this order; otherwise all."
    )
