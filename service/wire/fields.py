"""What wire types are made of: fields that many have, and a refusal of those that none has."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.latents import MAX_SEED, MIN_TRUNCATION

MAX_LATENT_VALUE = 100.0  # far outside any prior, and well inside float32


def _whole(value: object) -> object:
    """Take 7.0 for 7, as JSON does; what is not whole stays, and is refused as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)  # the last of a type's marks: what follows it is not in the document
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE]
LatentValue = Annotated[float, Field(ge=-MAX_LATENT_VALUE, le=MAX_LATENT_VALUE, allow_inf_nan=False)]
Latent = Annotated[list[LatentValue], Field(min_length=1, fail_fast=True)]


class ClosedModel(BaseModel):
    """Takes no field that it does not know. A body takes JSON types as they are; a query converts.

    Lists fail fast: of a million wrong items only the first is told.
    """

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


class Choice(ClosedModel):
    """What every request for images may choose."""

    model: str | None = Field(default=None, description="Name of the model; otherwise the default one.")
    domains: list[str] | None = Field(
        default=None,
        min_length=1,
        fail_fast=True,
        json_schema_extra={"uniqueItems": True},
        description="Names of the domains to draw, in this order; otherwise all.",
    )
    truncation: float | None = Field(
        default=None,
        ge=MIN_TRUNCATION,
        allow_inf_nan=False,
        description="Bound on every value of a latent drawn from a seed: lower is more typical, less varied.",
    )
