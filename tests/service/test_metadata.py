"""The metadata of a model file are read strictly, and its graph has a digest of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from pydantic import ValidationError

from service.metadata import METADATA_KEY, MetadataError, graph_digest, parse_metadata
from tests.conftest import LATENT_DIM, describe_model, domain_shapes


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
    """The message for a file without metadata differs from that for one with other metadata."""
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
def test_wrong_fields_are_named_with_their_values(fields: dict[str, Any], change: dict[str, Any], message: str) -> None:
    """The message has the field, its value and what is allowed."""
    with pytest.raises(MetadataError, match=message):
        parse_metadata({METADATA_KEY: json.dumps(fields | change)})


def test_repeated_domains_are_refused(fields: dict[str, Any]) -> None:
    """Two outputs cannot share a name."""
    with pytest.raises(MetadataError, match="repeat"):
        parse_metadata({METADATA_KEY: json.dumps(fields | {"domains": fields["domains"][:1] * 2})})


@pytest.fixture
def classifier(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a classifier of two classes."""
    own = {"kind": "classifier", "classes": ["zero", "one"], "domains": fields["domains"][:1], "goes_with": ["tiny"]}
    return {name: value for name, value in fields.items() if name != "prior"} | own


def test_a_classifier_has_classes_and_no_prior(classifier: dict[str, Any]) -> None:
    """It belongs to generators by name or by the digest of their graph."""
    generators = ["tiny", f"sha256:{'0' * 64}"]
    metadata = parse_metadata({METADATA_KEY: json.dumps(classifier | {"goes_with": generators})})
    assert (metadata.kind, metadata.prior, metadata.classes) == ("classifier", None, ("zero", "one"))
    assert metadata.goes_with == tuple(generators)


def test_an_encoder_has_a_prior_and_all_its_domains(fields: dict[str, Any]) -> None:
    """Its output is a latent of the generators that it belongs to."""
    metadata = parse_metadata({METADATA_KEY: json.dumps(fields | {"kind": "encoder", "goes_with": ["tiny"]})})
    assert (metadata.kind, len(metadata.domains), metadata.prior is None) == ("encoder", 2, False)


def test_older_metadata_are_those_of_a_generator(fields: dict[str, Any]) -> None:
    """Files from before the other kinds have neither kind, classes nor generators that they belong to."""
    older = {name: value for name, value in fields.items() if name not in ("kind", "classes", "goes_with")}
    metadata = parse_metadata({METADATA_KEY: json.dumps(older)})
    assert (metadata.kind, metadata.classes, metadata.goes_with) == ("generator", (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "judge"}, "kind = 'judge'"),
        ({"kind": "classifier", "domains": 1}, "at least two classes"),
        ({"kind": "classifier", "classes": ["one"], "domains": 1}, "at least two classes"),
        ({"kind": "classifier", "classes": ["one", "two"]}, "a classifier has one domain"),
        ({"classes": ["one", "two"]}, "only a classifier has classes, and this is of kind 'generator'"),
        ({"kind": "encoder", "classes": ["one", "two"]}, "this is of kind 'encoder'"),
        ({"prior": None}, "'prior' is required for kind 'generator'"),
        ({"kind": "encoder", "prior": None}, "'prior' is required for kind 'encoder'"),
        ({"goes_with": ["Not A Name"]}, "goes_with.0 = 'Not A Name'"),
        ({"goes_with": ["sha256:00"]}, "goes_with.0 = 'sha256:00'"),
    ],
)
def test_each_kind_has_its_own_fields(fields: dict[str, Any], change: dict[str, Any], message: str) -> None:
    """What a kind needs and lacks, or has and may not have, is named."""
    if change.get("domains") == 1:
        change = change | {"domains": fields["domains"][:1]}
    with pytest.raises(MetadataError, match=message):
        parse_metadata({METADATA_KEY: json.dumps(fields | change)})


def test_a_graph_digest_leaves_out_metadata_alone(tiny_model: Callable[..., Path]) -> None:
    """It is the sha256 of the file without its metadata properties, whatever these are, and covers every other part."""
    model = onnx.load(tiny_model())
    whole = model.SerializeToString()
    digest = graph_digest(whole)
    bare = onnx.ModelProto.FromString(whole)
    del bare.metadata_props[:]
    assert digest == f"sha256:{hashlib.sha256(bare.SerializeToString()).hexdigest()}"
    entry = bare.metadata_props.add()
    entry.key, entry.value = "note", "x" * 100_000
    assert graph_digest(bare.SerializeToString()) == digest
    for change in ("weight", "node", "opset"):
        other = onnx.ModelProto.FromString(whole)
        if change == "weight":
            weight = max(other.graph.initializer, key=lambda tensor: len(tensor.raw_data))
            weight.raw_data = weight.raw_data[:-1] + bytes([weight.raw_data[-1] ^ 1])
        elif change == "node":
            other.graph.node[-1].name = "renamed"
        else:
            other.opset_import[0].version += 1
        assert graph_digest(other.SerializeToString()) != digest


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x0b", b"\x72", b"junk of some length"])
def test_what_is_no_onnx_file_has_no_graph_digest(content: bytes) -> None:
    """Its end or an unknown part is met before the file is read."""
    with pytest.raises(MetadataError, match="not an ONNX model"):
        graph_digest(content)


UNIT_VECTOR = (1.0, *[0.0] * (LATENT_DIM - 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directions": [{"vector": (0.5, *UNIT_VECTOR[1:]), "spread": 1.0}]}, "a direction is a unit vector"),
        ({"directions": [{"vector": UNIT_VECTOR, "spread": 0.0}]}, "greater than 0"),
        ({"directions": [{"vector": (1.0,), "spread": 1.0}]}, f"a direction has {LATENT_DIM} values"),
        ({"directions": [{"name": "a", "vector": UNIT_VECTOR, "spread": 1.0}] * 2}, "direction names repeat"),
        ({"directions": [{"name": "1", "vector": UNIT_VECTOR, "spread": 1.0}]}, "String should match pattern"),
        ({"directions": [{"vector": UNIT_VECTOR, "spread": 1.0}] * 9}, "at most 8"),
        ({"kind": "classifier", "directions": [{"vector": UNIT_VECTOR, "spread": 1.0}]}, "only a generator has"),
    ],
)
def test_directions_are_checked(changes: dict[str, Any], message: str) -> None:
    """Directions are unit vectors of the latent, at most 8, with a spread and distinct names."""
    domains = domain_shapes(["digit"])
    with pytest.raises(ValidationError, match=message):
        describe_model("tiny", "1", domains, **changes)
