"""/models: what is served and refused. /livez, /readyz and /metrics: for machines that poll; no queue delays them."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder

from service.api.docs import problems
from service.api.schemas import Health, ModelCard, ModelList, RefusedModel
from service.engine.models import ModelRegistry
from service.engine.onnx_model import OnnxModel
from service.http.middleware import header
from service.telemetry.metrics import Metrics


def add_models(app: FastAPI, registry: ModelRegistry) -> None:
    """Add the routes of the served models to an app."""

    @app.get("/models", tags=["models"])
    async def list_models() -> ModelList:
        """List the served models by name, and the files that were refused, with the reasons."""
        refused = [RefusedModel(path=one.path, reason=one.reason) for one in registry.errors]
        return ModelList(default=registry.default, models=[_card(model) for model in registry.models], refused=refused)

    @app.get("/models/{name}", tags=["models"], responses=problems(404, 503))
    async def describe_model(name: str) -> ModelCard:
        """Describe a model: kind, prior, domains, provenance, and its measured quality."""
        return _card(registry.model(name, place="path"))


def _card(model: OnnxModel) -> ModelCard:
    return ModelCard(
        **dict(model.metadata), digest=model.digest, graph_digest=model.graph_digest, provider=model.provider
    )


def add_health(app: FastAPI, registry: ModelRegistry, metrics: Metrics) -> None:
    """Add the routes that machines poll to an app; they are of the process that answers."""

    @app.get("/livez", tags=["health"], responses=problems(503))
    async def live() -> Health:
        """Answer 200 while no batch hangs, whether there are models or not."""
        registry.check_alive()
        return Health(status="alive")

    @app.get("/readyz", tags=["health"], responses=problems(503))
    async def ready() -> Health:
        """Answer 200 from the first model that did its warm-up run until the service shuts down."""
        registry.check_ready()
        return Health(status="ready")

    @app.get("/metrics", tags=["health"], response_class=Response)
    def expose(request: Request) -> Response:
        """Return the metrics of all processes together, in the text format that `Accept` prefers."""
        encode, media_type = choose_encoder(header(request, "accept") or "")
        return Response(encode(metrics), media_type=media_type)
