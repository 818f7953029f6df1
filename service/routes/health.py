"""/livez, /readyz and /metrics: for orchestrators and Prometheus; they wait in no queue."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder

from service.engine.readiness import Readiness
from service.processes.siblings import Siblings
from service.routes.openapi import problems
from service.telemetry.metric_sums import Sums, snapshot
from service.telemetry.metrics import Metrics
from service.wire.answer_schemas import Health

SCRAPE_PATIENCE_S = 3.0  # docker/prometheus has a second more


class HealthRoutes:
    """What machines ask every few seconds."""

    def __init__(self, readiness: Readiness, metrics: Metrics, siblings: Siblings) -> None:
        self._readiness, self._metrics, self._siblings = readiness, metrics, siblings
        siblings.on("metrics", self._tell)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.get("/livez", tags=["health"], responses=problems(503))(self.live)
        app.get("/readyz", tags=["health"], responses=problems(503))(self.ready)
        app.get("/metrics", tags=["health"], response_class=Response, responses=problems(503))(self.expose)

    async def live(self) -> Health:
        """Answer 200 while every process can answer and no batch hangs, whether models are there or not."""
        await self._readiness.check_alive()
        return Health(status="alive")

    async def ready(self) -> Health:
        """Answer 200 once a model has answered its warm-up, until the service is told to end."""
        await self._readiness.check_ready()
        return Health(status="ready")

    async def expose(self, request: Request) -> Response:
        """Answer the metrics of all processes together, in the text format that `Accept` prefers."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        counted = await self._siblings.gather("metrics", patience_s=SCRAPE_PATIENCE_S)
        return Response(encode(Sums(counted)), media_type=media_type)

    async def _tell(self, _: None) -> list[Any]:
        return snapshot(self._metrics.registry)
