"""What a model file says of itself: JSON under the key `cogan` of its ONNX metadata."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

METADATA_KEY = "cogan"
SCHEMA_VERSIONS = (1,)
LATENT_INPUT = "latent"
CLASSES_OUTPUT = "classes"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
MAX_LATENT_DIM = 2**16


class MetadataError(ValueError):
    """The metadata of a model file is missing, unreadable or of an unknown schema."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prior(_Part):
    """The distribution that latents are drawn from: N(0, 1) or U(-1, 1) in every dimension."""

    distribution: Literal["normal", "uniform"]
    latent_dim: int = Field(ge=1, le=MAX_LATENT_DIM)


class Domain(_Part):
    """One image distribution; the graph's output of this name is uint8 [B, height, width, channels]."""

    name: Name
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    description: str


class Provenance(_Part):
    """The run that a model came from, as far as needed to repeat it."""

    experiment: dict[str, JsonValue]
    seed: int
    steps: int
    images_seen: int
    commit: str
    versions: dict[str, str]


class ModelMetadata(_Part):
    """Everything that a reader of the file needs, so that no contract lives in readers' heads."""

    schema_version: Literal[1] = 1
    kind: Literal["generator", "encoder", "classifier"] = "generator"
    name: Name
    version: Version
    prior: Prior
    domains: tuple[Domain, ...] = Field(min_length=1)
    provenance: Provenance
    quality: dict[str, JsonValue]
    data_license: str

    @model_validator(mode="after")
    def _domain_names_differ(self) -> ModelMetadata:
        names = [domain.name for domain in self.domains]
        if len(set(names)) < len(names):
            raise ValueError(f"domain names repeat: {names}")
        return self


def parse_metadata(properties: dict[str, str]) -> ModelMetadata:
    """Read and check the metadata among an ONNX file's properties.

    Raises MetadataError, naming the field, its value and what is allowed.
    """
    text = properties.get(METADATA_KEY)
    if text is None:
        raise MetadataError(f"the file has no '{METADATA_KEY}' metadata; found keys {sorted(properties)}")
    try:
        version = _SchemaVersion.model_validate_json(text).schema_version
        if version not in SCHEMA_VERSIONS:
            known = ", ".join(map(str, SCHEMA_VERSIONS))
            raise MetadataError(f"schema_version {version!r} is unknown; this service knows {known}")
        return ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        raise MetadataError(describe_errors(error)) from error


class _SchemaVersion(BaseModel):
    schema_version: JsonValue


def describe_errors(error: ValidationError) -> str:
    """Say in one line which fields are wrong, what they were and what is allowed."""
    problems, places = [], [e["loc"] for e in error.errors()]
    for e in error.errors():
        if any(place[: len(e["loc"])] == e["loc"] != place for place in places):
            continue  # it is wrong because of a part of it, which is told
        value = "" if e["type"] == "missing" else f" = {e['input']!r:.80}"  # the input is what lacks it
        where = f"{'.'.join(map(str, e['loc']))}{value}: " if e["loc"] else ""
        problems.append(where + e["msg"].removeprefix("Value error, "))
    return "; ".join(problems)
