"""Wire types: what requests and answers look like, and so what the OpenAPI document says."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.latents import MAX_INDEX, MAX_SEED, MIN_TRUNCATION, Method
from service.metadata import ModelMetadata

MAX_LATENT_VALUE = 100.0  # far outside any prior, and well inside float32
PairFormat = Literal["json", "png", "webp", "zip", "npz"]
FrameFormat = Literal["json", "gif", "webp", "png", "zip", "npz"]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
LatentValue = Annotated[float, Field(ge=-MAX_LATENT_VALUE, le=MAX_LATENT_VALUE, allow_inf_nan=False)]
Latent = Annotated[list[LatentValue], Field(min_length=1)]


class _Request(BaseModel):
    """Takes no field that it does not know. A body takes JSON types as they are; a query converts."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: object) -> object:
        """Name the fields that there are, which pydantic's own message does not."""
        known = _field_names(cls)
        unknown = [name for name in data if name not in known] if isinstance(data, dict) else []
        if unknown:
            context = {"field": unknown[0], "known": known}
            raise PydanticCustomError("unknown_field", "Unknown field '{field}'", context)
        return data


@cache
def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


class Choice(_Request):
    """What every request for images may choose."""

    model: str | None = Field(default=None, description="Name of the model; otherwise the default one.")
    domains: list[str] | None = Field(
        default=None, min_length=1, description="Names of the domains to draw, in this order; otherwise all."
    )
    truncation: float | None = Field(
        default=None,
        ge=MIN_TRUNCATION,
        allow_inf_nan=False,
        description="Bound on every value of a latent drawn from a seed: lower is more typical, less varied.",
    )


class _PairChoice(Choice):
    seed: Seed | None = Field(
        default=None, examples=[7], description="Seed of the images; otherwise one is drawn and returned."
    )
    seeds: list[Seed] | None = Field(default=None, min_length=1, description="Several seeds instead of one.")
    count: int = Field(default=1, ge=1, description="Images 0 to count - 1 of every seed.")
    format: PairFormat | None = Field(
        default=None, description="Form of the answer; otherwise what `Accept` prefers, or json."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.seed is not None and self.seeds is not None:
            raise PydanticCustomError("one_source", "Give 'seed' or 'seeds', not both")
        return self


class GenerateQuery(_PairChoice):
    """Query of GET /generate."""


class GenerateRequest(_PairChoice):
    """Body of POST /generate."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"seed": 7, "count": 2}, {"seeds": [1, 2, 3], "format": "png"}, {}]},
    )

    latents: list[Latent] | None = Field(
        default=None,
        min_length=1,
        description="Latents instead of seeds, each as long as the model's latent_dim.",
    )

    @model_validator(mode="after")
    def _latents_alone(self) -> Self:
        given = {"seed", "seeds", "count", "truncation"} & self.model_fields_set
        if self.latents is not None and given:
            raise PydanticCustomError(
                "one_source", "'latents' stands alone, without {given}", {"given": ", ".join(sorted(given))}
            )
        return self


class _FrameChoice(Choice):
    steps: int = Field(
        default=8, ge=2, examples=[8], description="Frames from one key frame to the next, both counted."
    )
    method: Method | None = Field(
        default=None,
        description="slerp or lerp; otherwise slerp for a normal prior and lerp for a uniform one.",
    )
    loop: bool = Field(default=False, description="Whether to lead back to the first key frame.")
    format: FrameFormat | None = Field(
        default=None, description="Form of the answer; otherwise what `Accept` prefers, or json."
    )


class InterpolateQuery(_FrameChoice):
    """Query of GET /interpolate."""

    start: Seed = Field(alias="from", description="Seed of the first frame.", examples=[1])
    end: Seed = Field(alias="to", description="Seed of the last frame.", examples=[2])


class Keyframe(_Request):
    """A latent that the way leads through: image `index` of a seed, or given values."""

    model_config = ConfigDict(strict=True)

    seed: Seed | None = None
    index: int = Field(default=0, ge=0, le=MAX_INDEX)
    latent: Latent | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.seed is None) == (self.latent is None) or (self.latent and "index" in self.model_fields_set):
            raise PydanticCustomError("one_source", "Give 'seed', with or without 'index', or 'latent'")
        return self


class InterpolateRequest(_FrameChoice):
    """Body of POST /interpolate."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 8}]}
    )

    keyframes: list[Keyframe] = Field(min_length=2)


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
