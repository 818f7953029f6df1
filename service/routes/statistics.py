"""/v2/models/stats: what models have done since they were loaded, as the protocol's extension tells it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from service.engine.model_registry import ModelRegistry
from service.engine.statistics import Span, Statistics
from service.processes.siblings import Siblings
from service.routes.openapi import problems
from service.routes.protocol_paths import TAGS, add_for_versions, named_model
from service.wire.inference_answers import (
    BatchStatistics,
    InferenceStatistics,
    ModelStatistics,
    Spent,
    StatisticsAnswer,
)

NOTHING = Spent(count=0, ns=0)


class StatisticsRoutes:
    """Counts of requests and runs in all processes, whether they came by this protocol or not."""

    def __init__(self, registry: ModelRegistry, siblings: Siblings) -> None:
        self._registry, self._siblings = registry, siblings
        siblings.on("statistics", self._tell)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app, before those of models by name."""
        app.get("/v2/models/stats", tags=TAGS, responses=problems(503))(self.count_all)
        add_for_versions(app.get, "/stats", self.count_one, responses=problems(404, 503))

    async def count_all(self) -> StatisticsAnswer:
        """Tell what every served model has done."""
        return await self._count([(model.name, model.version) for model in self._registry.models])

    async def count_one(self, request: Request, name: str) -> StatisticsAnswer:
        """Tell what one model has done."""
        model = named_model(self._registry, request, name)
        return await self._count([(model.name, model.version)])

    async def _count(self, wanted: list[tuple[str, str]]) -> StatisticsAnswer:
        counted = {one: Statistics() for one in wanted}
        for told in await self._siblings.gather("statistics"):
            for name, version, plain in told:
                if (name, version) in counted:
                    counted[name, version].join(Statistics.of_plain(plain))
        return StatisticsAnswer(model_stats=[_render(*one, done) for one, done in counted.items()])

    async def _tell(self, _: None) -> list[Any]:
        return [(model.name, model.version, model.statistics.plain()) for model in self._registry.models]


def _render(name: str, version: str, done: Statistics) -> ModelStatistics:
    return ModelStatistics(
        name=name,
        version=version,
        last_inference=int(done.last_run * 1000),
        inference_count=done.latents,
        execution_count=sum(span.count for span in done.runs.values()),
        inference_stats=InferenceStatistics(
            success=_spent(done.success),
            fail=_spent(done.fail),
            queue=_spent(done.queue),
            compute_input=NOTHING,
            compute_infer=_spent(done.infer),
            compute_output=NOTHING,
            cache_hit=NOTHING,
            cache_miss=NOTHING,
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=size, compute_input=NOTHING, compute_infer=_spent(span), compute_output=NOTHING
            )
            for size, span in sorted(done.runs.items())
        ],
    )


def _spent(span: Span) -> Spent:
    return Spent(count=span.count, ns=int(span.seconds * 1e9))
