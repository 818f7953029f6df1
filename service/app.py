"""Builds every object of the service and wires them: the only place that knows all of them."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from service.bare_app import make_bare_app
from service.cache import AnswerCache
from service.engine.batching import Batcher
from service.engine.model_changes import ModelChanges
from service.engine.model_loader import ModelLoader
from service.engine.model_registry import ModelRegistry
from service.engine.model_repository import ModelRepository
from service.engine.onnx_model import OnnxModel
from service.engine.readiness import Readiness
from service.engine.sessions import require_provider
from service.errors import SettingsError
from service.generation.generator import Generator
from service.http.cors import allow_origins
from service.http.gate import make_gate
from service.http.gathering import Gathering
from service.http.middleware import RequestMiddleware
from service.http.repeats import Repeats
from service.processes.siblings import Siblings
from service.routes.answers import ImageAnswers
from service.routes.docs import add_docs
from service.routes.generate import GenerateRoutes
from service.routes.health import HealthRoutes
from service.routes.image_routes import BodyRoute, direct_routes
from service.routes.inference_protocol import InferenceRoutes
from service.routes.interpolate import InterpolateRoutes
from service.routes.model_control import ModelControlRoutes
from service.routes.models import ModelRoutes
from service.routes.openapi import document_truly
from service.routes.statistics import StatisticsRoutes
from service.settings import Settings
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import make_tracer_provider
from service.timers import Timers


@dataclass(frozen=True)
class _Parts:
    """What routes and middleware are made of."""

    settings: Settings
    metrics: Metrics
    siblings: Siblings
    registry: ModelRegistry
    loader: ModelLoader
    readiness: Readiness
    generator: Generator
    repeats: Repeats
    timers: Timers


def create_app(settings: Settings) -> FastAPI:
    """Open the models and build the app around them. Raises StartError."""
    require_provider(settings.provider)
    access_log, tracer = AccessLog(), make_tracer_provider()
    workers = ThreadPoolExecutor(settings.threads, thread_name_prefix="draw")
    loader = ThreadPoolExecutor(1, thread_name_prefix="load")
    parts = _make_parts(settings, workers, loader)

    shutdowns = [partial(pool.shutdown, wait=False, cancel_futures=True) for pool in (workers, loader)]
    app = make_bare_app(tracer, access_log.write, *shutdowns)
    app.state.readiness, app.state.registry = parts.readiness, parts.registry
    app.state.siblings, app.state.changes = parts.siblings, ModelChanges(parts.loader, parts.siblings)
    _add_routes(app, parts)
    document_truly(app, settings)
    add_docs(app)
    health = HealthRoutes(parts.readiness, parts.metrics, parts.siblings)
    health.add_to(_guard(app, parts, access_log))
    return app


def _make_parts(settings: Settings, workers: Executor, loader: Executor) -> _Parts:
    metrics, timers, siblings = Metrics(), Timers(), Siblings()

    def make_batcher(model: OnnxModel) -> Batcher:
        return Batcher(model, workers, settings.threads, settings.max_queue, metrics, timers)

    registry = ModelRegistry(make_batcher, settings.default_model, metrics)
    repository = ModelRepository(settings.models_dir, settings.provider, settings.max_batch)
    models = ModelLoader(repository, registry, loader)
    _open_models(models, registry, settings.default_model)
    kept = AnswerCache(settings.cache_bytes // settings.processes)
    return _Parts(
        settings=settings,
        metrics=metrics,
        siblings=siblings,
        registry=registry,
        loader=models,
        readiness=Readiness(registry, settings.stuck_after_s, metrics, siblings),
        generator=Generator(registry, kept, metrics),
        repeats=Repeats(kept, lambda: registry.changes, metrics),
        timers=timers,
    )


def _guard(app: FastAPI, parts: _Parts, access_log: AccessLog) -> FastAPI:
    """Put what is set in front of an app; return the app for health, the same or one of its own."""
    settings, app.state.gathering = parts.settings, Gathering()
    protect = partial(
        RequestMiddleware,
        settings=settings,
        metrics=parts.metrics,
        access_log=access_log,
        timers=parts.timers,
        gathering=app.state.gathering,
        readiness=parts.readiness,
    )
    gate = make_gate(settings, parts.metrics, parts.siblings)
    app.add_middleware(protect, gate=gate, repeats=parts.repeats, direct=direct_routes(app))
    if settings.cors_origins is not None:
        allow_origins(app, settings.cors_origins)  # outermost: errors are read, too
    app.state.health = health = app if settings.health_port is None else make_bare_app(None)
    if health is not app:
        health.add_middleware(protect, gate=None, repeats=None, direct={})  # nothing that may need a key
    return health


def _add_routes(app: FastAPI, parts: _Parts) -> None:
    settings, registry, generator = parts.settings, parts.registry, parts.generator
    answers = ImageAnswers(generator, parts.repeats, settings.deadline_s)
    GenerateRoutes(generator, answers, settings.max_pairs).add_to(app)
    InterpolateRoutes(generator, answers, settings.max_frames).add_to(app)
    ModelRoutes(registry).add_to(app)
    StatisticsRoutes(registry, parts.siblings).add_to(app)
    InferenceRoutes(registry, generator, parts.readiness, settings).add_to(app)
    if settings.model_control:
        ModelControlRoutes(parts.loader.repository, registry, app.state.changes).add_to(app)
    app.router.routes.sort(key=lambda route: not isinstance(route, BodyRoute))  # looked for in this order


def _open_models(loader: ModelLoader, registry: ModelRegistry, asked: str | None) -> None:
    """Open what the models folder holds. Raises StartError, also where the default model is not served."""
    loader.open_all()
    served = [model.name for model in registry.models]
    if asked is not None and served and asked not in served:
        raise SettingsError(f"COGAN_DEFAULT_MODEL = {asked!r} is not served; served are {', '.join(served)}")
