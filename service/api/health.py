"""/livez, /readyz and /metrics of the process that answers: for orchestrators and Prometheus; no queue delays them."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder

from service.api.docs import problems
from service.api.schemas import Health
from service.engine.models import ModelRegistry
from service.telemetry.metrics import Metrics


class HealthRoutes:
    """Routes that machines poll every few seconds."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.get("/livez", tags=["health"], responses=problems(503))(self.live)
        app.get("/readyz", tags=["health"], responses=problems(503))(self.ready)
        app.get("/metrics", tags=["health"], response_class=Response)(self.expose)

    async def live(self) -> Health:
        """Answer 200 while no batch hangs, whether there are models or not."""
        self._registry.check_alive()
        return Health(status="alive")

    async def ready(self) -> Health:
        """Answer 200 from the first model that did its warm-up run until the service shuts down."""
        self._registry.check_ready()
        return Health(status="ready")

    def expose(self, request: Request) -> Response:
        """Return the metrics of all processes together, in the text format that `Accept` prefers."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._metrics), media_type=media_type)
