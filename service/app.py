"""Builds every object of the service and wires them: the only place that knows all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.batching import Batcher
from service.cache import AnswerCache
from service.errors import RequestError, SettingsError
from service.generator import Generator
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.model_repository import ModelRepository, open_repository
from service.onnx_model import require_provider
from service.problems import problem_response
from service.readiness import Readiness
from service.routes.documents import name_problem_type
from service.routes.generate import generate_router
from service.routes.health import health_router
from service.routes.interpolate import interpolate_router
from service.routes.models import models_router
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Open the models and build the app around them. Raises StartError."""
    require_provider(settings.provider)
    metrics = Metrics()
    repository = open_repository(settings.models_dir, settings.provider, settings.max_batch, metrics)
    default_model = _default_model(settings, repository)
    readiness = Readiness(repository.trouble, metrics)
    runs = settings.threads if settings.provider == "cpu" else 1  # a GPU's session belongs to one thread
    workers = ThreadPoolExecutor(runs, thread_name_prefix="run")
    encoders = ThreadPoolExecutor(settings.threads, thread_name_prefix="encode")
    batchers = {
        name: Batcher(model, workers, runs, settings.max_queue, metrics)
        for name, model in repository.models.items()
    }
    generator = Generator(batchers, default_model, encoders, AnswerCache(settings.cache_bytes), metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.shutdown(cancel_futures=True)
        encoders.shutdown(cancel_futures=True)

    app = FastAPI(
        title="CoGAN",
        description="Coupled images: one latent, drawn in every domain of a model.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.include_router(generate_router(generator, settings))
    app.include_router(interpolate_router(generator, settings))
    app.include_router(models_router(generator, repository, default_model))
    app.include_router(health_router(readiness, metrics))
    app.add_middleware(
        RequestMiddleware, metrics=metrics, readiness=readiness, max_body_bytes=settings.max_body_bytes
    )
    for error in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _handle)
    app.state.readiness, app.state.models = readiness, list(repository.models)
    _document_truly(app)
    return app


def _default_model(settings: Settings, repository: ModelRepository) -> str | None:
    asked, served = settings.default_model, list(repository.models)
    if asked is not None and served and asked not in served:
        raise SettingsError(f"COGAN_DEFAULT_MODEL = {asked!r} is not served; served are {', '.join(served)}")
    return next((name for name in served if asked in (None, name)), None)


async def _handle(_: Request, error: Exception) -> Response:
    return problem_response(error)


def _document_truly(app: FastAPI) -> None:
    write = app.openapi

    def openapi() -> dict[str, Any]:
        return name_problem_type(write())

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way of extending it
