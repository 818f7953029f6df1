"""Wire types of answers: what they look like as JSON, and so what the OpenAPI document says of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.metadata import ModelMetadata


class Pair(BaseModel):
    """The coupled images of one latent, as data URLs of PNGs."""

    seed: int | None = Field(default=None, description="Absent where the latent was given.")
    index: int = Field(description="Which image of the seed, or which of the given latents.")
    images: dict[str, str] = Field(description="A data URL for every domain.")


class _Drawn(BaseModel):
    model: str
    version: str
    digest: str = Field(description="sha256 of the model file.")
    domains: list[str]


class GenerateAnswer(_Drawn):
    """Answer of /generate as JSON."""

    pairs: list[Pair]


class Frame(BaseModel):
    """One frame: t = 1.0 is the second key frame."""

    t: float
    images: dict[str, str] = Field(description="A data URL for every domain.")


class InterpolateAnswer(_Drawn):
    """Answer of /interpolate as JSON."""

    frames: list[Frame]


class ModelCard(ModelMetadata):
    """A served model: the metadata of its file, and how it is served."""

    digest: str = Field(description="sha256 of the model file.")
    provider: Literal["cpu", "cuda"]


class RefusedModel(BaseModel):
    """A model file that is not served."""

    path: str
    reason: str


class ModelList(BaseModel):
    """Answer of /models."""

    default: str | None = Field(description="Model of a request that names none.")
    models: list[ModelCard]
    refused: list[RefusedModel]


class Health(BaseModel):
    """Answer of /livez and /readyz."""

    status: Literal["alive", "ready"]


class WrongField(BaseModel):
    """One wrong field of a request."""

    place: Literal["body", "query", "path", "header"]
    pointer: str = Field(description="JSON pointer to the field.")
    value: str | int | float | bool | None = Field(description="The value as sent, shortened.")
    allowed: str | list[str]


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    title: str
    status: int
    detail: str
    code: str
    errors: list[WrongField]
    request_id: str | None
    error: str = Field(default="", description="The detail once more, below /v2 alone.")
