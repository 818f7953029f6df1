"""What a model file says of itself is read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from service.metadata import METADATA_KEY, MetadataError, parse_metadata


@pytest.fixture
def fields(tiny_model: Callable[..., Path]) -> dict[str, Any]:
    """Return the metadata of a tiny model as JSON holds it."""
    properties = onnx.load(tiny_model(("digit", "edge"))).metadata_props
    loaded: dict[str, Any] = json.loads({one.key: one.value for one in properties}[METADATA_KEY])
    return loaded


def test_good_metadata_is_read(fields: dict[str, Any]) -> None:
    """What was written is what is read."""
    metadata = parse_metadata({METADATA_KEY: json.dumps(fields)})
    assert [domain.name for domain in metadata.domains] == ["digit", "edge"]


def test_missing_metadata_names_the_keys_that_are_there() -> None:
    """A file without metadata is told apart from one with other metadata."""
    with pytest.raises(MetadataError, match=r"no 'cogan' metadata.*author"):
        parse_metadata({"author": "somebody"})


def test_unknown_schema_names_the_known_ones(fields: dict[str, Any]) -> None:
    """A file of a later schema is refused by its number, whatever else it holds."""
    with pytest.raises(MetadataError, match="schema_version 99 is unknown; this service knows 1"):
        parse_metadata({METADATA_KEY: json.dumps({**fields, "schema_version": 99, "novelty": True})})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Upper Case"}, "name = 'Upper Case'"),
        ({"version": "01"}, "version = '01'"),
        ({"surprise": 1}, "surprise = 1"),
        ({"domains": []}, "domains"),
        ({"prior": {"distribution": "cauchy", "latent_dim": 8}}, "distribution = 'cauchy'"),
    ],
)
def test_wrong_fields_are_named_with_their_values(
    fields: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    """The message has the field, its value and what is allowed."""
    with pytest.raises(MetadataError, match=message):
        parse_metadata({METADATA_KEY: json.dumps(fields | change)})


def test_repeated_domains_are_refused(fields: dict[str, Any]) -> None:
    """Two outputs cannot share a name."""
    with pytest.raises(MetadataError, match="repeat"):
        parse_metadata({METADATA_KEY: json.dumps(fields | {"domains": fields["domains"][:1] * 2})})
