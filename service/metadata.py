"""Metadata of a model file: JSON under the key `cogan` of its ONNX metadata properties.

Three kinds of model share it. A generator maps `latent`, float32 [B, Z], to one uint8 [B, H, W, C] a domain, named
by it. A classifier maps the images of one domain to `classes`, float32 [B, K] of probabilities. An encoder maps
the images of one domain and `previous`, float32 [B, Z], to `latent`: one pass, which begins at zeros and is repeated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

METADATA_KEY = "cogan"
SCHEMA_VERSION = 1
LATENT = "latent"  # input of a generator, output of an encoder
PREVIOUS = "previous"  # input of an encoder: the latent of the pass before, zeros for the first
CLASSES = "classes"  # output of a classifier
METADATA_PROPS = 14  # field of a ModelProto that holds the metadata
NO_ONNX = "the file is not an ONNX model"

MAX_DIRECTIONS = 8
UNIT = 1e-4  # how far a direction's length may be from 1

Kind = Literal["generator", "encoder", "classifier"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
GeneratorId = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*|sha256:[0-9a-f]{64})$", max_length=71)]
MAX_LATENT_DIM = 2**16


class MetadataError(ValueError):
    """The metadata of a model file is missing, unreadable or of an unknown schema."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Prior(_Part):
    """The distribution of latents: N(0, 1) or U(-1, 1) in every dimension."""

    distribution: Literal["normal", "uniform"]
    latent_dim: int = Field(ge=1, le=MAX_LATENT_DIM)


class Domain(_Part):
    """One image distribution; its images are uint8 [B, height, width, channels]."""

    name: Name
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    description: str


class Direction(_Part):
    """A direction of the latent along which the images of all domains change together."""

    name: Name | None = None
    """A direction is requested by its number, from 1, or by this name."""
    vector: tuple[float, ...]
    """Unit vector, [Z]."""
    spread: float = Field(gt=0, allow_inf_nan=False)
    """Standard deviation of the prior along it."""

    @model_validator(mode="after")
    def _is_unit(self) -> Direction:
        if not abs(length := math.hypot(*self.vector) - 1) <= UNIT:
            raise ValueError(f"a direction is a unit vector, and this one's length differs from 1 by {length:.3g}")
        return self


class Provenance(_Part):
    """The run that a model came from, as far as needed to repeat it."""

    experiment: dict[str, JsonValue]
    seed: int
    steps: int
    images_seen: int
    commit: str
    versions: dict[str, str]


class ModelMetadata(_Part):
    """Everything that a reader of the file needs to know about it."""

    schema_version: Literal[1] = 1
    kind: Kind = "generator"
    name: Name
    version: Version
    prior: Prior | None = None
    """Of latents; a classifier has none."""
    domains: tuple[Domain, ...] = Field(min_length=1)
    """Outputs of a generator, inputs of an encoder or a classifier."""
    classes: tuple[str, ...] = ()
    """Class names of a classifier, by output index."""
    directions: tuple[Direction, ...] = Field(default=(), max_length=MAX_DIRECTIONS)
    """Directions of a generator's latents, the one that changes images most first."""
    goes_with: tuple[GeneratorId, ...] = ()
    """Generators that a classifier or an encoder belongs to: names or graph digests."""
    provenance: Provenance
    quality: dict[str, JsonValue]
    data_license: str

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ModelMetadata:
        names = [domain.name for domain in self.domains]
        if len(set(names)) < len(names):
            raise ValueError(f"domain names repeat: {names}")
        if self.kind == "classifier":
            if self.domains[1:] or len(self.classes) < 2:
                raise ValueError("a classifier has one domain and at least two classes")
        elif self.classes:
            raise ValueError(f"only a classifier has classes, and this is of kind '{self.kind}'")
        elif self.prior is None:
            raise ValueError(f"'prior' is required for kind '{self.kind}'")
        if self.directions:
            self._check_directions()
        return self

    def _check_directions(self) -> None:
        if self.kind != "generator" or self.prior is None:
            raise ValueError(f"only a generator has directions, and this is of kind '{self.kind}'")
        if wrong := {len(one.vector) for one in self.directions} - {self.prior.latent_dim}:
            raise ValueError(f"a direction has {self.prior.latent_dim} values, and here are some of {sorted(wrong)}")
        named = [one.name for one in self.directions if one.name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"direction names repeat: {named}")


def graph_digest(content: bytes) -> str:
    """Return the sha256 of an ONNX file without its metadata properties, as `sha256:<hex>`.

    It stays the same when a figure is added to the metadata. Raises MetadataError for bytes that are no ONNX file.
    """
    digest = hashlib.sha256()
    for number, start, _, end in _fields(content):
        if number != METADATA_PROPS:
            digest.update(content[start:end])
    return f"sha256:{digest.hexdigest()}"


def read_properties(content: bytes) -> dict[str, str]:
    """Return the metadata properties of an ONNX file, which end it. Raises MetadataError if it is cut or none."""
    entries = [content[value:end] for number, _, value, end in _fields(content) if number == METADATA_PROPS]
    try:
        return dict([entry[value:end].decode() for _, _, value, end in _fields(entry)] for entry in entries)
    except ValueError as error:
        raise MetadataError(NO_ONNX) from error


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, start of the value and end of each field of a protocol buffers message."""
    position = 0
    while position < len(content):
        start = position
        key, position = _varint(content, position)
        wire_type, value = key & 7, position
        if wire_type in (0, 2):
            number, position = _varint(content, position)
            value = position
            position += number if wire_type == 2 else 0
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise MetadataError(NO_ONNX)
        yield key >> 3, start, value, position
    if position > len(content):
        raise MetadataError(NO_ONNX)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length integer, of at most ten bytes, and the position behind it."""
    value = 0
    for i, byte in enumerate(content[position : position + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise MetadataError(NO_ONNX)


def parse_metadata(properties: dict[str, str]) -> ModelMetadata:
    """Parse and check the metadata among an ONNX file's properties.

    Raises MetadataError, naming the field, its value and what is allowed.
    """
    text = properties.get(METADATA_KEY)
    if text is None:
        raise MetadataError(f"the file has no '{METADATA_KEY}' metadata; found keys {sorted(properties)}")
    try:
        version = _SchemaVersion.model_validate_json(text).schema_version
        if version != SCHEMA_VERSION:
            raise MetadataError(f"schema_version {version!r} is unknown; this service knows {SCHEMA_VERSION}")
        return ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        raise MetadataError(describe_errors(error)) from error


class _SchemaVersion(BaseModel):
    schema_version: JsonValue


def describe_errors(error: ValidationError) -> str:
    """Return one line that names the wrong fields, their values and what is allowed."""
    problems, places = [], [e["loc"] for e in error.errors()]
    for e in error.errors():
        if any(place[: len(e["loc"])] == e["loc"] != place for place in places):
            continue  # wrong because of a part of it, which has a line of its own
        value = "" if e["type"] == "missing" else f" = {e['input']!r:.80}"  # the input is what lacks it
        where = f"{'.'.join(map(str, e['loc']))}{value}: " if e["loc"] else ""
        problems.append(where + e["msg"].removeprefix("Value error, "))
    return "; ".join(problems)
