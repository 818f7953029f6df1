"""The OpenAPI document is true: its examples run, and what they answer is as described."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio


async def read_document(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def example_query(operation: dict[str, Any]) -> dict[str, Any]:
    """Collect the examples of an operation's parameters."""
    parameters = operation.get("parameters", [])
    return {p["name"]: p["schema"]["examples"][0] for p in parameters if "examples" in p["schema"]}


async def test_examples_of_bodies_run(client: httpx.AsyncClient) -> None:
    """Every body in the document is answered with 200 and a type that the document lists."""
    document = await read_document(client)
    ran = 0
    for path, operations in document["paths"].items():
        schema = (
            operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        )
        name = schema.get("schema", {}).get("$ref", "/").rsplit("/", 1)[1]
        for body in document["components"]["schemas"].get(name, {}).get("examples", []):
            answer = await client.post(path, json=body)
            assert answer.status_code == 200
            assert answer.headers["content-type"] in operations["post"]["responses"]["200"]["content"]
            ran += 1
    assert ran >= 4


async def test_examples_of_queries_run(client: httpx.AsyncClient) -> None:
    """Every GET without a name in its path answers its examples with 200."""
    document = await read_document(client)
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path:
            query = example_query(operations["get"])
            assert (await client.get(path, params=query)).status_code == 200
    assert example_query(document["paths"]["/interpolate"]["get"]).keys() >= {"from", "to"}


async def test_errors_are_described_as_they_are(client: httpx.AsyncClient) -> None:
    """Every error answer in the document is a problem+json of the one schema."""
    document = await read_document(client)
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_unknown_fields_are_described_as_refused(client: httpx.AsyncClient) -> None:
    """The document says of every request that it takes no other fields."""
    schemas = (await read_document(client))["components"]["schemas"]
    for name in ("GenerateRequest", "InterpolateRequest", "Keyframe"):
        assert schemas[name]["additionalProperties"] is False
