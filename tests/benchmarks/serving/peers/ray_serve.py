"""Ray Serve.

- "Performance Tuning": a replica with a processor of its own for each processor, and more ongoing requests
  than the 5 of the default.
- "Enable High Throughput on Ray Serve": RAY_SERVE_THROUGHPUT_OPTIMIZED=1. Its other switch, HAProxy in front,
  listens on all interfaces and so is not used here.
- "Set Up FastAPI and HTTP": without validation and documents, the raw Starlette request is the fast way.
- "Configure logging": the access log off.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from tests.benchmarks.serving.peers.drawing import Drawer, processors


class Generate:
    """A replica of the model."""

    def __init__(self) -> None:
        self.drawer = Drawer()

    async def __call__(self, request: Request) -> JSONResponse:
        """Draw the images of a seed."""
        asked: dict[str, Any] = await request.json()
        return JSONResponse(self.drawer.answers([asked["seed"]])[0])


def main() -> None:
    """Serve on PORT, in a cluster of this machine alone, until SIGTERM."""
    ray.init(
        _node_ip_address="127.0.0.1",
        num_cpus=processors(),
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    deployment = serve.deployment(
        Generate,
        num_replicas=processors(),
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=100,
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    serve.run(deployment.bind(), route_prefix="/generate")
    asyncio.run(_until_stopped())
    serve.shutdown()
    ray.shutdown()


async def _until_stopped() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    main()
