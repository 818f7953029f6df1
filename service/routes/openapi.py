"""What the OpenAPI document says of answers that are not one JSON type."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.encoding import Format
from service.problems import MEDIA_TYPE
from service.schemas import Problem

Responses = dict[int | str, dict[str, Any]]


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
BODY_RESPONSES = problems(400, 415)


def document_truly(app: FastAPI) -> None:
    """Correct what FastAPI writes of errors: their media type, and a 422 of a shape that no answer has."""
    write = app.openapi

    def openapi() -> dict[str, Any]:
        document = write()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"] = dict(_corrected(operation["responses"]))
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it


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
