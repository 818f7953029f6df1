"""What the OpenAPI document says of answers that are not one JSON type."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from service.encoding import Format
from service.problems import MEDIA_TYPE
from service.schemas import Problem

IMAGE_PROBLEMS = (400, 404, 406, 413, 415, 422, 429, 500, 503, 504)
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
        **problems(*IMAGE_PROBLEMS),
    }


def name_problem_type(document: dict[str, Any]) -> dict[str, Any]:
    """Give the error answers of an OpenAPI document their media type, which FastAPI writes as plain JSON."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "application/json" in response.get("content", {}):
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    return document
