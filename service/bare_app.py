"""An app without routes: what FastAPI is told, how errors are answered, and what its end ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from opentelemetry.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from service import __version__
from service.errors import WrongMethod
from service.http.middleware import QUIET_ROUTES
from service.http.problems import REFUSALS, problem_response


def make_bare_app(tracer: TracerProvider | None, *ends: Callable[[], object]) -> FastAPI:
    """Build an app whose errors are problems; `ends` are called when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for end in ends:
            end()

    app = FastAPI(
        title="CoGAN",
        version=__version__,
        description="Coupled images: one latent, drawn in every domain of a model.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        telemetry={
            "tracing": tracer is not None,
            "tracer_provider": tracer,
            "metrics": False,  # Prometheus has them
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope.get("path") in QUIET_ROUTES,
        },
    )
    for error in REFUSALS:
        app.add_exception_handler(error, _handle)
    return app


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = _wrong_method(request)
    return problem_response(error, request.scope["path"])


def _wrong_method(request: Request) -> WrongMethod:
    """Name the methods of all routes of a path; Starlette names those of the first."""
    path = request.scope["route"].path
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.path == path]
    methods = {method for route in routes for method in route.methods or ()}
    allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return WrongMethod(f"allowed at this path: {allowed}", headers={"Allow": allowed})
