"""Containers of SageMaker, Vertex AI and Hugging Face: their demands, met by the service's own settings and routes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from fastapi import FastAPI, Request, Response
from pydantic import ConfigDict, Field, JsonValue
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.generate import ImageRoutes
from service.api.options import deadline, moved, read_json
from service.api.schemas import ClosedModel, GenerateRequest
from service.errors import FieldError, InvalidRequest, SettingsError, TooLarge
from service.generation.generator import Generator
from service.generation.spec import GenerationSpec
from service.http.middleware import OUTSIDE_PATH
from service.settings import Settings

SAGEMAKER_MODELS = Path("/opt/ml/model")  # where SageMaker unpacks a model's archive
SAGEMAKER_ALIASES = "/ping=/readyz,/invocations=/generate"
PREDICT = "/predict"


def adopt_platform(argument: str | None, environment: MutableMapping[str, str]) -> None:
    """Set the service's variables by those of the platform; ones that are set by hand stay. Raises SettingsError.

    SageMaker starts a container with the argument `serve`, Vertex AI with AIP_ variables, and a Space of Hugging Face
    with SPACE_ID.
    """
    if argument == "serve":
        chosen = {"PORT": environment.get("SAGEMAKER_BIND_TO_PORT", "8080"), "ALIASES": SAGEMAKER_ALIASES}
        if any(SAGEMAKER_MODELS.glob("*/*/model.onnx")):
            environment["COGAN_MODELS_DIR"] = str(SAGEMAKER_MODELS)  # over the image's own
    elif (port := environment.get("AIP_HTTP_PORT")) is not None:
        health, predict = (_route(f"AIP_{name}_ROUTE", environment) for name in ("HEALTH", "PREDICT"))
        chosen = {"PORT": port, "ALIASES": f"{health}=/readyz,{predict}={PREDICT}"}
        if store := environment.get("AIP_STORAGE_URI"):
            environment["COGAN_MODELS_DIR"] = store  # over the image's own
    elif "SPACE_ID" in environment:
        chosen = {"FRAME_ORIGINS": "https://huggingface.co"}  # whose page shows it in a frame
    else:
        return
    for name, value in {"HOST": "0.0.0.0", **chosen}.items():
        environment.setdefault(f"COGAN_{name}", value)


def _route(variable: str, environment: Mapping[str, str]) -> str:
    path = environment.get(variable, "")
    if not path.startswith("/") or "," in path or "=" in path:
        raise SettingsError(f"{variable} = {path!r}: allowed is a path that begins with '/', without ',' and '='")
    return path


class AliasMiddleware:
    """Serves routes under further paths."""

    def __init__(self, app: ASGIApp, aliases: Mapping[str, str]) -> None:
        """Take the path of a route by each path from outside."""
        self._app, self._aliases = app, aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the route that its path stands for."""
        if (path := self._aliases.get(scope.get("path", ""))) is not None:
            scope = {**scope, "path": path, "raw_path": path.encode(), OUTSIDE_PATH: scope["path"]}
        await self._app(scope, receive, send)


class PredictRequest(ClosedModel):
    """Vertex AI's request: each instance is a body of /generate."""

    model_config = ConfigDict(strict=True)

    instances: list[GenerateRequest] = Field(min_length=1, max_length=1024)
    parameters: dict[str, JsonValue] | None = Field(default=None, max_length=0)
    """None are known: an instance has them all."""


def add_predictions(app: FastAPI, images: ImageRoutes, generator: Generator, settings: Settings) -> None:
    """Add Vertex AI's route to an app: what /generate returns as JSON, for each instance."""

    async def predict(request: Request) -> Response:
        """Generate the coupled images of all instances, at most as many as one response of /generate has."""
        limit = settings.max_pairs
        wanted = (await read_json(request, PredictRequest, {"instances": limit})).instances
        specs = [_spec(images, i, one) for i, one in enumerate(wanted)]
        pairs, pixels = sum(spec.size for spec in specs), sum(spec.pixels for spec in specs)
        if pairs > limit or pixels > settings.max_pixels:
            allowed = f"at most {limit} pairs and {settings.max_pixels} pixels"
            wrong = FieldError("/instances", f"{pairs} pairs of {pixels} pixels", allowed)
            raise TooLarge(f"one response has {allowed}; send several requests", [wrong])
        until = deadline(request, settings.deadline_s)
        bodies = await asyncio.gather(*(_generate(generator, i, spec, until) for i, spec in enumerate(specs)))
        return Response(b'{"predictions": [' + b", ".join(bodies) + b"]}", media_type="application/json")

    app.post(PREDICT, include_in_schema=False)(predict)  # the platform's documents describe it


def _spec(images: ImageRoutes, number: int, wanted: GenerateRequest) -> GenerationSpec:
    with moved(lambda pointer: f"/instances/{number}{pointer}"):
        if wanted.format not in (None, "json"):
            raise InvalidRequest("a prediction is JSON", [FieldError("/format", wanted.format, ["json"])])
        return images.spec(wanted, "json", "body")[0]


async def _generate(generator: Generator, number: int, spec: GenerationSpec, until: float) -> bytes:
    with moved(lambda pointer: f"/instances/{number}{pointer}"):
        return (await generator.generate(spec, until, "body"))[0]
