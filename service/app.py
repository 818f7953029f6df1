"""Builds every object of a server process and connects them: the only place that knows all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request
from opentelemetry.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match, Route

from service import __version__
from service.api.clouds import PREDICT, AliasMiddleware, add_predictions
from service.api.docs import customize_openapi, direct_routes
from service.api.generate import ImageRoutes
from service.api.models import add_health, add_models
from service.api.pages import add_docs, add_studio
from service.api.schemas import MAX_LATENT_VALUE
from service.api.shards import ShardRoutes, lower_priority
from service.api.translate import TranslateRoutes
from service.engine.batcher import Batcher
from service.engine.models import ControlState, ModelLoader, ModelRegistry, ModelRepository
from service.engine.onnx_model import OnnxModel, require_provider
from service.errors import SettingsError, WrongMethod
from service.generation.decoding import ImageDecoder
from service.generation.generator import Generator
from service.generation.translation import Translator
from service.http.access import CORS, POLLED, AccessControl
from service.http.middleware import RequestMiddleware
from service.http.problems import EXPECTED, problem_response
from service.http.response_cache import ResponseCache
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import make_tracer_provider
from service.v2.routes import InferenceRoutes, ModelControlRoutes


def create_app(settings: Settings, run_folder: Path | None = None) -> FastAPI:
    """Load the models and build the app. Raises StartError.

    `run_folder` is where the processes of a service share what requests have loaded and unloaded.
    """
    require_provider(settings.provider)
    metrics = Metrics()
    access = AccessControl(settings, metrics)
    sizes = {"worker": settings.threads, "encode": 1, "load": 1, "decode": settings.threads}
    pools: dict[str, Executor] = {name: ThreadPoolExecutor(size, name) for name, size in sizes.items()}
    pools["bulk"] = ThreadPoolExecutor(settings.threads, "bulk", lower_priority)

    def make_batcher(model: OnnxModel) -> Batcher:
        return Batcher(model, pools["worker"], pools["encode"], settings.threads, settings.max_queue, metrics)

    registry = ModelRegistry(make_batcher, settings.default_model, settings.stuck_after_s, metrics)
    repository = ModelRepository(Path(settings.models_dir), settings.provider, settings.max_batch)
    control = ControlState(run_folder and run_folder / "models.json")
    loader = ModelLoader(repository, registry, control, pools["load"])
    loader.load_all()
    wanted, served = settings.default_model, [model.name for model in registry.generators]
    if wanted is not None and served and wanted not in served:
        raise SettingsError(f"COGAN_DEFAULT_MODEL = {wanted!r} is not served; generators are {', '.join(served)}")
    app = _base_app(make_tracer_provider(), pools.values())
    app.state.registry, app.state.loader, app.state.metrics = registry, loader, metrics
    cached = ResponseCache(settings.cache_bytes // settings.processes, lambda: registry.changes, metrics)
    _add_routes(app, settings, cached, pools)
    add_health(_add_middleware(app, settings, access, cached), registry, metrics)
    _check_aliases(app, settings)
    return app


def _add_routes(app: FastAPI, settings: Settings, cached: ResponseCache, pools: Mapping[str, Executor]) -> None:
    registry: ModelRegistry = app.state.registry
    metrics: Metrics = app.state.metrics
    generator = Generator(registry, settings.max_pixels, metrics)
    (images := ImageRoutes(generator, cached, metrics, settings)).add_to(app)
    translator = Translator(registry, ImageDecoder(pools["decode"], metrics), metrics, MAX_LATENT_VALUE)
    TranslateRoutes(generator, translator, metrics, settings.deadline_s).add_to(app)
    ShardRoutes(generator, pools["bulk"], lambda: registry.busy, metrics, settings.deadline_s).add_to(app)
    add_models(app, registry)
    InferenceRoutes(registry, metrics, settings).add_to(app)
    if settings.model_control:
        ModelControlRoutes(registry, app.state.loader).add_to(app)
    if PREDICT in settings.routes_by_alias.values():
        add_predictions(app, images, generator, settings)
    customize_openapi(app, settings)
    add_docs(app)
    add_studio(app)


def _add_middleware(app: FastAPI, settings: Settings, access: AccessControl, cached: ResponseCache) -> FastAPI:
    """Put middleware around an app; return the app for health, the same or one of its own."""
    protect = partial(RequestMiddleware, settings=settings, metrics=app.state.metrics, registry=app.state.registry)
    app.add_middleware(protect, access=access if access.restricts else None, cached=cached, direct=direct_routes(app))
    if settings.cors_origins is not None:  # outermost: pages read errors, too
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins.split(","), **CORS)
    if settings.aliases is not None:  # outside all else, so that a route is the same under each of its paths
        app.add_middleware(AliasMiddleware, aliases=settings.routes_by_alias)
    app.state.health = health = app if settings.health_port is None else _base_app(None, ())
    if health is not app:
        health.add_middleware(protect, access=None, cached=None, direct={})  # nothing that may need a key
        health.state.metrics = app.state.metrics
    return health


def _check_aliases(app: FastAPI, settings: Settings) -> None:
    """Raise SettingsError for an alias of a path that no route of this port has, or in place of one that it has."""

    def is_route(path: str) -> bool:
        scope = {"type": "http", "path": path, "method": "GET"}
        return any(route.matches(scope)[0] is not Match.NONE for route in app.routes)

    for alias, path in settings.routes_by_alias.items():
        named = f"COGAN_ALIASES = '{alias}={path}'"
        if not is_route(path):
            allowed = "one that /docs lists, and health routes only without COGAN_HEALTH_PORT"
            raise SettingsError(f"{named}: there is no route {path!r}; allowed is {allowed}")
        if alias != path and is_route(alias):
            raise SettingsError(f"{named}: {alias!r} is a route itself; allowed is a path that is none")


def _base_app(tracer: TracerProvider | None, pools: Iterable[Executor]) -> FastAPI:
    """Return an app without routes, whose errors are problems; it ends with its pools."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)

    return FastAPI(
        title="CoGAN",
        version=__version__,
        description="Coupled images: one latent, generated in every domain of a model.",
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(EXPECTED, _handle),
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
            "exclude": lambda scope: scope.get("path") in POLLED,
        },
    )


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:  # Starlette names the first route's methods
        path, routes = request.scope["route"].path, [one for one in request.app.routes if isinstance(one, Route)]
        methods = {method for route in routes if route.path == path for method in route.methods or ()}
        allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        error = WrongMethod(f"allowed at this path: {allowed}", headers={"Allow": allowed})
    return problem_response(error, request.scope["path"])
