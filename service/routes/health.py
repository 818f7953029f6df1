"""/livez, /readyz and /metrics: for orchestrators and Prometheus; they wait in no queue."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder

from service.answer_schemas import Health
from service.errors import NotReady, Stuck
from service.metrics import Metrics
from service.readiness import Readiness
from service.routes.openapi import problems


class HealthRoutes:
    """What machines ask every few seconds."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness, self._metrics = readiness, metrics

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.get("/livez", tags=["health"], responses=problems(503))(self.live)
        app.get("/readyz", tags=["health"], responses=problems(503))(self.ready)
        app.get("/metrics", tags=["health"], response_class=Response)(self.expose)

    async def live(self) -> Health:
        """Answer 200 while the process can answer and no batch hangs, whether models are there or not."""
        if self._readiness.hang is not None:
            raise Stuck(self._readiness.hang)
        return Health(status="alive")

    async def ready(self) -> Health:
        """Answer 200 once a model has answered its warm-up, until the service is told to end."""
        if self._readiness.trouble is not None:
            raise NotReady(self._readiness.trouble, headers={"Retry-After": "5"})
        return Health(status="ready")

    async def expose(self, request: Request) -> Response:
        """Answer the metrics in the text format that `Accept` prefers."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._metrics.registry), media_type=media_type)
