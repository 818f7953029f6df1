"""Types of requests and responses, and so what the OpenAPI document says of them."""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, Literal, Self, TypeVar

from annotated_types import Le, MaxLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from service.generation.spec import Filters
from service.latents import MAX_INDEX, MAX_SEED, MIN_TRUNCATION, Method
from service.metadata import MAX_DIRECTIONS, MAX_LATENT_DIM, ModelMetadata

MAX_LATENT_VALUE = 100.0  # far outside any prior, and well inside float32
MAX_DOMAINS = 64  # named in one request
MAX_SHARD_SIZE = 100_000  # seeds
MAX_FIRST_INDEX = 2**31  # far below MAX_INDEX, which no candidate then reaches
MAX_STEP = 10.0  # spreads along a direction: far outside any prior
Model = TypeVar("Model", bound=BaseModel)


def _whole(value: object) -> object:
    """Take 7.0 for 7, as JSON does; what is not whole stays, and is refused as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)  # the last of a type's annotations: what follows it is not in the document
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE]
LatentValue = Annotated[float, Field(ge=-MAX_LATENT_VALUE, le=MAX_LATENT_VALUE, allow_inf_nan=False)]
LatentValues = Annotated[list[LatentValue], Field(min_length=1, max_length=MAX_LATENT_DIM, fail_fast=True)]
DomainNames = Annotated[
    list[str], Field(min_length=1, max_length=MAX_DOMAINS, fail_fast=True, json_schema_extra={"uniqueItems": True})
]
OF_A_SEED: JsonDict = {"required": ["seed"], "properties": {"seed": {"type": "integer"}}}
OF_SEEDS = ("seed", "seeds", "index", "count", "truncation", "class", "min_confidence", "agree")  # not of latents
MAX_SCALE = 64
Scale = Annotated[int, Field(ge=1, le=MAX_SCALE), WHOLE]
Step = Annotated[float, Field(ge=-MAX_STEP, le=MAX_STEP, allow_inf_nan=False)]
Steps = Annotated[dict[str, Step], Field(max_length=2 * MAX_DIRECTIONS)]
PairFormat = Literal["json", "png", "webp", "zip", "npz"]
ShardFormat = Literal["png", "webp", "npy"]
FrameFormat = Literal["json", "gif", "webp", "png", "zip", "npz"]


def _steps(text: object) -> object:
    """Take 1:2,thickness:-1 for {"1": 2, "thickness": -1}."""
    if not isinstance(text, str):
        return text
    pairs = [part.rpartition(":") for part in text.split(",")]
    if len({name for name, _, _ in pairs}) < len(pairs) or not all(name for name, _, _ in pairs):
        raise PydanticCustomError("steps", "Write each direction once, as in 1:2,thickness:-1")
    return {name: value for name, _, value in pairs}


WRITTEN_STEPS = WithJsonSchema({"type": "string", "pattern": r"^[a-z0-9_]+:[^:,]+(,[a-z0-9_]+:[^:,]+)*$"})
QuerySteps = Annotated[Steps | None, BeforeValidator(_steps), WRITTEN_STEPS]


class ClosedModel(BaseModel):
    """Refuses unknown fields. A body takes JSON types as they are; a query converts.

    Lists fail fast: of a million wrong items only the first is reported.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def limited(model: type[Model], **limits: int) -> type[Model]:
    """Return a request type with these limits: on the length of a list, on the value of a number."""
    fields: dict[str, Any] = {}
    for name in limits.keys() & model.model_fields.keys():
        field = copy(model.model_fields[name])
        bound = Le(limits[name]) if field.annotation is int else MaxLen(limits[name])
        field.metadata = [bound, *field.metadata]
        fields[name] = field.annotation, field
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


class _ImageRequest(ClosedModel):
    """Fields of every request for images."""

    model: str | None = None
    """Name of the model; otherwise the default one."""
    domains: DomainNames | None = None
    """Names of the domains to generate, in this order; otherwise all."""
    truncation: float | None = Field(default=None, ge=MIN_TRUNCATION, allow_inf_nan=False)
    """Bound on every value of a latent of a seed: lower is more typical, less varied."""
    labels: bool = False
    """Label the images by the classifiers that go with the model: class, confidence, agreement."""
    directions: Steps | None = None
    """Spreads to move along directions of the model, by number or name: {"1": 2.0, "thickness": -1}."""


class FilterFields(ClosedModel):
    """Filters of pairs by their labels. Of each seed the first candidates by index that pass are taken."""

    class_name: str | None = Field(default=None, alias="class")
    """Class of the image of the first requested domain that has a classifier."""
    min_confidence: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Least confidence, in every requested domain that has a classifier."""
    agree: bool = False
    """Require equal classes in all requested domains that have a classifier."""

    @property
    def filters(self) -> Filters | None:
        """The filters; None if there are none."""
        return Filters(self.class_name, self.min_confidence or 0.0, self.agree) or None


class _PairRequest(_ImageRequest, FilterFields):
    seed: Seed | None = Field(default=None, examples=[7])
    """Seed of the images; otherwise a random one is returned."""
    seeds: list[Seed] | None = Field(default=None, min_length=1, fail_fast=True)
    """Several seeds instead of one."""
    index: Annotated[int, Field(ge=0, le=MAX_FIRST_INDEX), WHOLE] = 0
    """First image of every seed."""
    count: Annotated[int, Field(ge=1), WHOLE] = 1
    """Images of every seed, from `index` on; with filters, those that pass, of at most 1000 candidates."""
    format: PairFormat | None = None
    """Format of the response; otherwise what `Accept` prefers, or json."""
    scale: Scale = 1
    """Side of the square that a pixel becomes, in pictures: png and webp."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.seed is not None and self.seeds is not None:
            raise PydanticCustomError("one_source", "Give 'seed' or 'seeds', not both")
        return self


class _QueryDirections(ClosedModel):
    directions: QuerySteps = None
    """Spreads to move along directions of the model, by number or name: 1:2,thickness:-1."""


class GenerateQuery(_QueryDirections, _PairRequest):
    """Query of GET /generate."""


class GenerateRequest(_PairRequest):
    """Body of POST /generate."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [{"seed": 7, "count": 2}, {"seeds": [1, 2, 3], "format": "png"}, {}],
            "anyOf": [
                {"properties": {"latents": {"type": "null"}, "seed": {"type": "null"}}},
                {"properties": {"latents": {"type": "null"}, "seeds": {"type": "null"}}},
                {"properties": dict.fromkeys(OF_SEEDS, False)},
            ],
        },
    )

    latents: list[LatentValues] | None = Field(default=None, min_length=1, fail_fast=True)
    """Latents instead of seeds, each as long as the model's latent_dim."""

    @model_validator(mode="after")
    def _latents_alone(self) -> Self:
        if self.latents is None:
            return self
        given = [name for name in OF_SEEDS if name.replace("class", "class_name") in self.model_fields_set]
        if given:
            others = {"given": ", ".join(sorted(given))}
            raise PydanticCustomError("one_source", "'latents' stands alone, without {given}", others)
        return self


class _FrameRequest(_ImageRequest):
    steps: Annotated[int, Field(ge=2), WHOLE] = Field(default=8, examples=[8])
    """Frames from one key frame to the next, both counted."""
    method: Method | None = None
    """slerp or lerp; otherwise slerp for a normal prior and lerp for a uniform one."""
    loop: bool = False
    """Return to the first key frame."""
    format: FrameFormat | None = None
    """Format of the response, images as animations; otherwise what `Accept` prefers, or json."""
    scale: Scale = 1
    """Side of the square that a pixel becomes, in pictures: gif, webp and png."""


class Keyframe(ClosedModel):
    """A latent on the path: image `index` of a seed, or given values."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "oneOf": [
                {"required": ["seed"], "properties": {"seed": {"type": "integer"}, "latent": {"type": "null"}}},
                {
                    "required": ["latent"],
                    "properties": {"latent": {"type": "array"}, "seed": {"type": "null"}, "index": False},
                },
            ]
        },
    )

    seed: Seed | None = None
    index: Annotated[int, Field(ge=0, le=MAX_INDEX), WHOLE] = 0
    latent: LatentValues | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.seed is None) == (self.latent is None) or (self.latent and "index" in self.model_fields_set):
            raise PydanticCustomError("one_source", "Give 'seed', with or without 'index', or 'latent'")
        return self


class InterpolateQuery(_QueryDirections, _FrameRequest):
    """Query of GET /interpolate."""

    start: Seed = Field(alias="from", examples=[1])
    """Seed of the first frame."""
    end: Seed = Field(alias="to", examples=[2])
    """Seed of the last frame."""

    @property
    def keyframes(self) -> list[Keyframe]:
        """The first and the last frame."""
        return [Keyframe(seed=self.start), Keyframe(seed=self.end)]


class InterpolateRequest(_FrameRequest):
    """Body of POST /interpolate."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [{"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 8}],
            "anyOf": [
                {"properties": {"truncation": {"type": "null"}}},
                {"properties": {"keyframes": {"contains": OF_A_SEED}}},
            ],
        },
    )

    keyframes: list[Keyframe] = Field(min_length=2, fail_fast=True)

    @model_validator(mode="after")
    def _truncates_seeds(self) -> Self:
        if self.truncation is not None and all(one.seed is None for one in self.keyframes):
            raise PydanticCustomError("no_seed", "'truncation' bounds latents of seeds, and no key frame has a seed")
        return self


class ShardQuery(_QueryDirections, _ImageRequest, FilterFields):
    """Query of GET /shards."""

    digest: str | None = Field(default=None, pattern="^sha256:[0-9a-f]{64}$")
    """Digest that the model has to have; otherwise the response is 409."""
    size: Annotated[int, Field(ge=1, le=MAX_SHARD_SIZE), WHOLE] = 1000
    """Seeds of a shard: shard n has the seeds from n * size on, and of each one pair."""
    format: ShardFormat = "png"
    """Format of the images."""


class ResponseModel(BaseModel):
    """A response as JSON."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ImageLabel(ResponseModel):
    """The class that a classifier reads in an image."""

    class_name: str = Field(alias="class")
    confidence: float


class _Labelled(ResponseModel):
    labels: dict[str, ImageLabel] | None = None
    """Label of every domain that has a classifier; absent if they are not requested."""
    agree: bool | None = None
    """True if all classes are equal; null if no domain has a classifier."""


class Pair(_Labelled):
    """The coupled images of one latent, as data URLs of PNGs."""

    seed: int | None = None
    """Absent if the latent was given."""
    index: int
    """Number of the image of its seed, or of the given latent, from 0."""
    images: dict[str, str]
    """A data URL for every domain."""


class _Images(ResponseModel):
    model: str
    version: str
    digest: str
    """sha256 of the model file."""
    domains: list[str]


class GenerateResponse(_Images):
    """Response of /generate as JSON."""

    pairs: list[Pair]


class Frame(_Labelled):
    """One frame: t = 1.0 is the second key frame."""

    t: float
    images: dict[str, str]
    """A data URL for every domain."""


class InterpolateResponse(_Images):
    """Response of /interpolate as JSON."""

    frames: list[Frame]


class ModelCard(ModelMetadata):
    """A served model: the metadata of its file, and how it is served."""

    digest: str
    """sha256 of the model file."""
    graph_digest: str
    """sha256 of the model file without its metadata."""
    provider: Literal["cpu", "cuda"]


class RefusedModel(ResponseModel):
    """A model file that is not served."""

    path: str
    reason: str


class ModelList(ResponseModel):
    """Response of /models."""

    default: str | None
    """Model of requests that name none."""
    models: list[ModelCard]
    refused: list[RefusedModel]


class Health(ResponseModel):
    """Response of /livez and /readyz."""

    status: Literal["alive", "ready"]


class WrongField(ResponseModel):
    """One wrong field of a request."""

    place: Literal["body", "query", "path", "header"]
    pointer: str
    """JSON pointer to the field."""
    value: str | int | float | bool | None
    """The value as sent, shortened."""
    allowed: str | list[str]


class Problem(ResponseModel):
    """An error, as RFC 9457 defines it."""

    title: str
    status: int
    detail: str
    code: str
    errors: list[WrongField]
    request_id: str | None
    error: str = ""
    """The detail again, below /v2 only."""
