"""Builds every object of the service and wires them: the only place that knows all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route

from service import __version__
from service.access_log import AccessLog
from service.batching import Batcher
from service.cache import AnswerCache
from service.errors import RequestError, SettingsError, WrongMethod
from service.gate import make_gate
from service.generator import Generator
from service.inference import HEADER_LENGTH
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.model_registry import ModelRegistry
from service.model_repository import ModelRepository
from service.onnx_model import OnnxModel, require_provider
from service.problems import problem_response
from service.readiness import Readiness
from service.repeats import Repeats
from service.routes.answers import ImageAnswers
from service.routes.generate import GenerateRoutes
from service.routes.health import HealthRoutes
from service.routes.image_routes import BodyRoute
from service.routes.inference_protocol import InferenceRoutes
from service.routes.interpolate import InterpolateRoutes
from service.routes.model_control import ModelControlRoutes
from service.routes.models import ModelRoutes
from service.routes.openapi import document_truly
from service.routes.statistics import StatisticsRoutes
from service.settings import Settings
from service.timers import Timers

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": [
        "Authorization",
        "X-API-Key",
        "X-Request-Id",
        "Traceparent",
        "If-None-Match",
        HEADER_LENGTH,
    ],
    "expose_headers": [
        "X-Request-Id",
        "ETag",
        "Retry-After",
        "Server-Timing",
        "Content-Location",
        HEADER_LENGTH,
    ],
    "max_age": 600,
}


def create_app(settings: Settings) -> FastAPI:
    """Open the models and build the app around them. Raises StartError."""
    require_provider(settings.provider)
    metrics, timers, access_log = Metrics(), Timers(), AccessLog()
    workers = ThreadPoolExecutor(settings.threads, thread_name_prefix="draw")
    loader = ThreadPoolExecutor(1, thread_name_prefix="load")

    def make_batcher(model: OnnxModel) -> Batcher:
        return Batcher(model, workers, settings.threads, settings.max_queue, metrics, timers)

    registry = _open_models(settings, make_batcher, loader, metrics)
    readiness = Readiness(lambda: registry.trouble, metrics)
    kept = AnswerCache(settings.cache_bytes)
    generator = Generator(registry, kept, metrics)
    repeats = Repeats(kept, lambda: registry.changes, metrics)

    shutdowns = (partial(pool.shutdown, cancel_futures=True) for pool in (workers, loader))
    app = _bare_app(settings, access_log.write, *shutdowns)
    _add_routes(app, settings, registry, generator, repeats, readiness)
    protect = partial(
        RequestMiddleware,
        settings=settings,
        metrics=metrics,
        access_log=access_log,
        timers=timers,
        repeats=repeats,
        readiness=readiness,
    )
    HealthRoutes(readiness, metrics).add_to(_guard(app, settings, metrics, protect))
    app.state.readiness, app.state.registry = readiness, registry
    return app


def _guard(
    app: FastAPI, settings: Settings, metrics: Metrics, protect: Callable[..., RequestMiddleware]
) -> FastAPI:
    """Put what is set in front of an app; return the app for health, the same or one of its own."""
    app.add_middleware(protect, gate=make_gate(settings, metrics))
    if settings.cors_origins is not None:
        origins = [origin.strip() for origin in settings.cors_origins.split(",")]
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)  # outermost: errors are read, too
    app.state.health = health = app if settings.health_port is None else _bare_app(settings)
    if health is not app:
        health.add_middleware(protect, gate=None)
    return health


def _bare_app(settings: Settings, *ends: Callable[[], object]) -> FastAPI:
    """Build an app without routes, whose errors are problems; `ends` are called when it ends."""

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
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for error in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _handle)
    document_truly(app, settings)
    return app


def _add_routes(
    app: FastAPI,
    settings: Settings,
    registry: ModelRegistry,
    generator: Generator,
    repeats: Repeats,
    readiness: Readiness,
) -> None:
    answers = ImageAnswers(generator, repeats, settings.deadline_s)
    GenerateRoutes(generator, answers, settings.max_pairs).add_to(app)
    InterpolateRoutes(generator, answers, settings.max_frames).add_to(app)
    ModelRoutes(registry).add_to(app)
    StatisticsRoutes(registry).add_to(app)
    InferenceRoutes(registry, generator, readiness, settings).add_to(app)
    if settings.model_control:
        ModelControlRoutes(registry).add_to(app)
    app.router.routes.sort(key=lambda route: not isinstance(route, BodyRoute))  # looked for in this order


def _open_models(
    settings: Settings, make_batcher: Callable[[OnnxModel], Batcher], loader: Executor, metrics: Metrics
) -> ModelRegistry:
    """Open what the models folder holds. Raises StartError, also where the default model is not served."""
    repository = ModelRepository(settings.models_dir, settings.provider, settings.max_batch)
    registry = ModelRegistry(repository, make_batcher, settings.default_model, loader, metrics)
    registry.open_all()
    asked, served = settings.default_model, [model.name for model in registry.models]
    if asked is not None and served and asked not in served:
        raise SettingsError(f"COGAN_DEFAULT_MODEL = {asked!r} is not served; served are {', '.join(served)}")
    return registry


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
