"""Routes that draw images: one by GET with a query, one by POST with a JSON body, of the same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import UnsupportedMediaType
from service.routes.openapi import BODY_RESPONSES, QUERY_RESPONSES, Responses
from service.routes.patience import TIMEOUT_PARAMETER
from service.routes.queries import refuse_query
from service.telemetry.tracing import trace_route
from service.wire.parsing import parse_body


def add_image_routes(
    app: FastAPI,
    path: str,
    by_query: Callable[..., Any],
    by_body: Callable[..., Any],
    responses: Responses,
) -> None:
    """Add both routes of a path to an app."""
    options: dict[str, Any] = {"tags": ["images"], "response_class": Response}
    options["openapi_extra"] = {"parameters": [TIMEOUT_PARAMETER]}
    app.get(path, responses=responses | QUERY_RESPONSES, **options)(by_query)
    app.router.add_api_route(
        path,
        by_body,
        methods=["POST"],
        responses=responses | BODY_RESPONSES,
        route_class_override=BodyRoute,
        **options,
    )


class BodyRoute(APIRoute):
    """Documented by FastAPI, but calls `endpoint(request, body)` itself: bytes become the model in one step.

    FastAPI would look for dependencies, of which there are none, and read the content type as an e-mail's.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        assert self.body_field is not None
        self._kind: Any = self.body_field.field_info.annotation
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self  # where a request comes without routing
        trace_route(scope["method"], self.path)
        request = Request(scope, receive)
        refuse_query(request)
        content = (await receive())["body"]  # whole: RequestMiddleware has read it
        if not content:
            missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
            raise RequestValidationError([missing])
        if not _is_json(request.headers.get("content-type", "")):
            raise UnsupportedMediaType(
                "the body must be JSON, under the header 'Content-Type: application/json'"
            )
        response = await self.endpoint(request, parse_body(self._kind, content))
        await response(scope, receive, send)


def direct_routes(app: FastAPI) -> dict[tuple[str, str], ASGIApp]:
    """Return what answers a body, by method and path: it needs nothing that FastAPI does before."""
    routes = [route for route in app.router.routes if isinstance(route, BodyRoute)]
    return {("POST", route.path): route.app for route in routes}


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
