"""What the OpenAPI document says of answers that are not one JSON type."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.generation.encoding import Format
from service.http.gate import PUBLIC
from service.http.problems import MEDIA_TYPE
from service.settings import Settings
from service.wire.answer_schemas import Problem

Responses = dict[int | str, dict[str, Any]]
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
Limits = dict[str, tuple[str, int]]


def problems(*statuses: int) -> Responses:
    """Describe error answers."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def image_responses(answer: type[BaseModel], formats: Mapping[str, Format]) -> Responses:
    """Describe the answers of a route that draws images: JSON as `answer`, other formats, problems."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {form.media_type: binary for name, form in formats.items() if name != "json"}
    return {
        200: {"model": answer, "content": content, "description": "The images"},
        **problems(404, 406, 413, 422, 429, 500, 503, 504),
    }


QUERY_RESPONSES: Responses = {304: {"description": "The client has this answer"}}
BODY_RESPONSES = problems(400, 408, 415)


def document_truly(app: FastAPI, settings: Settings) -> None:
    """Say what FastAPI does not know: the limits that are set, and the form that errors have."""
    write = app.openapi
    limits = _limits(settings)

    def openapi() -> dict[str, Any]:
        document = write()
        _set_limits(document, limits)
        _set_gate(document, settings)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"] = dict(_corrected(operation["responses"]))
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _limits(settings: Settings) -> Limits:
    """Return the keyword and value that bound a field, by the field's name."""
    pairs, frames = settings.max_pairs, settings.max_frames
    return {
        "count": ("maximum", pairs),
        "seeds": ("maxItems", pairs),
        "latents": ("maxItems", pairs),
        "steps": ("maximum", frames),
        "keyframes": ("maxItems", frames),
    }


def _set_limits(document: dict[str, Any], limits: Limits) -> None:
    """Bound every field of a request that has a limit."""
    requests = [schema for name, schema in document["components"]["schemas"].items() if "Request" in name]
    fields = [field for schema in requests for field in schema["properties"].items()]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    fields += [(p["name"], p["schema"]) for operation in operations for p in operation.get("parameters", ())]
    for name, schema in fields:
        if name in limits:
            keyword, value = limits[name]
            schema[keyword] = value


def _set_gate(document: dict[str, Any], settings: Settings) -> None:
    """Say which keys an operation needs, and that it may be refused, where that is set."""
    keyed = settings.api_keys is not None or settings.api_keys_file is not None
    statuses = ([401] if keyed else []) + ([429] if settings.rate_limit else [])
    guarded = [operations for path, operations in document["paths"].items() if path not in PUBLIC]
    for operation in (operation for operations in guarded for operation in operations.values()):
        for status in statuses:
            content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            described = {"description": HTTPStatus(status).phrase, "content": content}
            operation["responses"].setdefault(str(status), described)
        if keyed:
            operation["security"] = [{scheme: []} for scheme in KEY_SCHEMES]
    if keyed:
        document["components"]["securitySchemes"] = KEY_SCHEMES


def _corrected(responses: dict[str, Any]) -> list[tuple[str, Any]]:
    corrected = []
    for status, response in responses.items():
        json = response.get("content", {}).get("application/json")
        if int(status) >= 400 and json is not None:
            if json["schema"]["$ref"].endswith("HTTPValidationError"):
                continue
            response = {**response, "content": {MEDIA_TYPE: json}}
        corrected.append((status, response))
    return corrected
