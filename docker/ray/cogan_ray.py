"""The service on Ray Serve: each replica is one process of it, and Ray's proxies spread requests over them.

On this machine: `PYTHONPATH=docker/ray serve run cogan_ray:app`; on a cluster: `serve deploy docker/ray/config.yaml`.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

from fastapi import FastAPI
from ray import serve
from ray.serve.metrics import Gauge

from service.app import create_app
from service.remote import local_models
from service.settings import load_settings
from service.telemetry.logs import configure_logs

OPEN = ExitStack()  # closed when the replica exits


def build() -> FastAPI:
    """Return the app of a replica, which has one processor."""
    settings = load_settings()
    configure_logs(settings.log_level)
    models = OPEN.enter_context(local_models(settings))
    one = {"models_dir": str(models), "processes": 1, "threads": 1, "model_control": False}
    return create_app(settings.model_copy(update=one))


@serve.deployment(
    max_ongoing_requests=64,  # as many as a batch has; of Ray's default, 5, most would wait in the proxy
    max_queued_requests=512,  # in each proxy; what is over gets 503
    health_check_period_s=5,
    graceful_shutdown_timeout_s=25,  # more than COGAN_DEADLINE_S
    autoscaling_config={"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 16},
)
@serve.ingress(build)
class Cogan:
    """A replica; Ray calls its health check every few seconds."""

    async def check_health(self) -> None:
        """Look at the models folder, publish the metrics; raise Stuck if only a restart helps."""
        state = self.app.state
        await state.loader.refresh()
        for metric in state.metrics.collect():
            for sample in metric.samples:
                gauge(sample.name, tuple(sample.labels)).set(sample.value, dict(sample.labels))
        state.registry.check_alive()


@cache
def gauge(name: str, labels: tuple[str, ...]) -> Gauge:
    """Return Ray's gauge of a metric, which Ray exports as ray_<name> with the replica among its labels."""
    return Gauge(name, tag_keys=labels)


app = Cogan.bind()
