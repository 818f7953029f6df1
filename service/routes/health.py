"""/livez, /readyz and /metrics: for orchestrators and Prometheus; they wait in no queue."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service.errors import NotReady
from service.metrics import Metrics
from service.readiness import Readiness
from service.routes.documents import problems
from service.schemas import Health


def health_router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """Build the routes that machines ask."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="Whether the process answers")
    async def live() -> Health:
        """Answer while the process can, whatever its models do."""
        return Health(status="alive")

    @router.get("/readyz", summary="Whether to send requests here", responses=problems(503))
    async def ready() -> Health:
        """Answer 200 once a model has answered its warm-up, until the service is told to end."""
        if readiness.trouble is not None:
            raise NotReady(readiness.trouble, headers={"Retry-After": "5"})
        return Health(status="ready")

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def expose(request: Request) -> Response:
        """Answer in the text format that `Accept` prefers."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), media_type=media_type)

    return router
