"""The OpenAPI document: the parts of it that FastAPI cannot derive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import Route, request_response

from service.api.options import TIMEOUT
from service.api.schemas import Problem
from service.generation.encoding import Format
from service.http.access import PUBLIC
from service.http.problems import MEDIA_TYPE
from service.settings import Settings

Responses = dict[int | str, dict[str, Any]]
SCHEMAS = "#/components/schemas/{model}"
BINARY = {"schema": {"type": "string", "format": "binary"}}
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT,
    "in": "header",
    "description": "Seconds after which the response is of no use; it shortens the deadline of the settings.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS.format(model="Problem")}}}
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def problems(*statuses: int) -> Responses:
    """Describe error responses."""
    return {status: {"description": HTTPStatus(status).phrase, "content": PROBLEM} for status in statuses}


NOT_MODIFIED: Responses = {304: {"description": "The client has this response"}}
BODY_RESPONSES = problems(400, 408, 415)


def image_responses(model: type[BaseModel], formats: Mapping[str, Format]) -> Responses:
    """Describe the responses of a route that generates images: JSON as `model`, other formats, problems."""
    content = {form.media_type: BINARY for name, form in formats.items() if name != "json"}
    return {
        200: {"model": model, "content": content, "description": "The images"},
        **problems(404, 406, 413, 422, 429, 500, 503, 504),
    }


def json_body(model: type[BaseModel], required: bool = True, about: str = "") -> dict[str, Any]:
    """Describe a JSON body that the route reads itself."""
    body = {"required": required, "content": {"application/json": {"schema": schema_of(model)}}}
    return {"requestBody": body | ({"description": about} if about else {})}


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe a query that the route reads itself."""
    schema = schema_of(model)
    needed = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": one, "description": one.pop("description")}
        for name, one in schema["properties"].items()
    ]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inline(definitions[part["$ref"].rpartition("/")[2]])
        return {key: inline(value) for key, value in part.items()}

    return {key: inline(value) for key, value in schema.items()}


class PlainRoute(APIRoute):
    """Documented by FastAPI; its endpoint takes the request and returns the response, and has no dependencies.

    Solving dependencies and their exit stacks would cost a request a twentieth of its time.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)


def direct_routes(app: FastAPI) -> dict[tuple[str, str], Route]:
    """Return the plain routes of an app whose paths have no parameters, by method and path."""
    plain = [route for route in app.routes if isinstance(route, PlainRoute) and not route.param_convertors]
    return {(method, route.path): route for route in plain for method in route.methods or ()}


def add_image_route(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    responses: Responses,
    query: type[BaseModel] | None = None,
    **extra: Any,
) -> None:
    """Add a route that returns images and reads its request itself, described by `responses`, `query` and `extra`."""
    parameters = [*extra.pop("parameters", ()), *(query_parameters(query) if query else ()), TIMEOUT_PARAMETER]
    app.router.add_api_route(
        path,
        endpoint,
        methods=[method],
        tags=["images"],
        response_class=Response,
        responses=responses,
        openapi_extra={**extra, "parameters": parameters},
        route_class_override=PlainRoute,
    )


def customize_openapi(app: FastAPI, settings: Settings) -> None:
    """Add what FastAPI does not know: keys, rate limit, errors, and a server that is right behind a path prefix."""
    write, lock = app.openapi, Lock()

    def openapi() -> dict[str, Any]:
        with lock:  # FastAPI's own document is visible to other threads before it is complete
            if app.openapi_schema is None:
                _complete(write(), settings)
        return write()  # the same document, which FastAPI has kept

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _complete(document: dict[str, Any], settings: Settings) -> None:
    document["servers"] = [{"url": "."}]  # relative to the document
    problem = Problem.model_json_schema(ref_template=SCHEMAS)
    schemas = document["components"]["schemas"] | problem.pop("$defs") | {"Problem": problem}
    document["components"]["schemas"] = {n: s for n, s in schemas.items() if not n.endswith("ValidationError")}
    keyed = settings.api_keys is not None or settings.api_keys_file is not None
    if keyed:
        document["components"]["securitySchemes"] = KEY_SCHEMES
    rejections = (problems(401) if keyed else {}) | (problems(429) if settings.rate_limit else {})
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if "application/json" in responses.get("422", {}).get("content", ()):
                del responses["422"]  # FastAPI's own, of parameters that may be any text
            if path not in PUBLIC:
                operation["responses"] = {str(status): one for status, one in rejections.items()} | responses
                if keyed:
                    operation["security"] = [{scheme: []} for scheme in KEY_SCHEMES]
