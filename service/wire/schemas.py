"""Wire types of requests: what may be asked, and so what the OpenAPI document says of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.latents import MAX_INDEX, Method
from service.wire.fields import WHOLE, Choice, ClosedModel, Latent, Seed

PairFormat = Literal["json", "png", "webp", "zip", "npz"]
FrameFormat = Literal["json", "gif", "webp", "png", "zip", "npz"]


class _PairChoice(Choice):
    seed: Seed | None = Field(
        default=None, examples=[7], description="Seed of the images; otherwise one is drawn and returned."
    )
    seeds: list[Seed] | None = Field(
        default=None, min_length=1, fail_fast=True, description="Several seeds instead of one."
    )
    count: Annotated[int, Field(ge=1), WHOLE] = Field(
        default=1, description="Images 0 to count - 1 of every seed."
    )
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
        json_schema_extra={
            "examples": [{"seed": 7, "count": 2}, {"seeds": [1, 2, 3], "format": "png"}, {}],
            "anyOf": [
                {"properties": {"latents": {"type": "null"}, "seed": {"type": "null"}}},
                {"properties": {"latents": {"type": "null"}, "seeds": {"type": "null"}}},
                {"properties": dict.fromkeys(("seed", "seeds", "count", "truncation"), False)},
            ],
        },
    )

    latents: list[Latent] | None = Field(
        default=None,
        min_length=1,
        fail_fast=True,
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
    steps: Annotated[int, Field(ge=2), WHOLE] = Field(
        default=8, examples=[8], description="Frames from one key frame to the next, both counted."
    )
    method: Method | None = Field(
        default=None,
        description="slerp or lerp; otherwise slerp for a normal prior and lerp for a uniform one.",
    )
    loop: bool = Field(default=False, description="Whether to lead back to the first key frame.")
    format: FrameFormat | None = Field(
        default=None,
        description="Form of the answer, pictures as animations; otherwise what `Accept` prefers, or json.",
    )


class InterpolateQuery(_FrameChoice):
    """Query of GET /interpolate."""

    start: Seed = Field(alias="from", description="Seed of the first frame.", examples=[1])
    end: Seed = Field(alias="to", description="Seed of the last frame.", examples=[2])


class Keyframe(ClosedModel):
    """A latent that the way leads through: image `index` of a seed, or given values."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["seed"],
                    "properties": {"seed": {"type": "integer"}, "latent": {"type": "null"}},
                },
                {
                    "required": ["latent"],
                    "properties": {"latent": {"type": "array"}, "seed": {"type": "null"}, "index": False},
                },
            ]
        },
    )

    seed: Seed | None = None
    index: Annotated[int, Field(ge=0, le=MAX_INDEX), WHOLE] = 0
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

    keyframes: list[Keyframe] = Field(min_length=2, fail_fast=True)
