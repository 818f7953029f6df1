"""/livez, /readyz and /metrics, which orchestrators and Prometheus read."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.errors import SettingsError
from service.settings import Settings
from tests.running import START, Service

pytestmark = pytest.mark.anyio


async def test_ready_with_a_model(client: httpx.AsyncClient) -> None:
    """A model that did its warm-up run makes the service ready."""
    assert (await client.get("/livez")).json() == {"status": "alive"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_batch_that_hangs_fails_livez(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], held: Callable[[], threading.Event]
) -> None:
    """/livez fails while a batch takes longer than the setting, and no longer; /readyz does not."""
    tiny_model()
    client = connect(stuck_after_s=0.05)
    gate = held()
    pending = asyncio.create_task(client.get("/generate?seed=1"))
    async with asyncio.timeout(START):
        while (await client.get("/livez")).status_code == 200:
            await asyncio.sleep(0.01)
    for path in ("/livez", "/v2/health/live"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "stuck")
        assert response.json()["detail"].startswith("a batch has been running for ")
    assert (await client.get("/readyz")).status_code == 200
    gate.set()
    assert (await pending).status_code == 200
    assert (await client.get("/livez")).status_code == 200


async def test_without_a_model_it_is_alive_and_gives_the_reason(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """The service starts without any model, so that its responses and logs can say what is wrong."""
    tiny_model(name="bad").write_bytes(b"junk")
    client = connect()
    assert (await client.get("/livez")).status_code == 200
    response = await client.get("/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "bad/1/model.onnx: onnxruntime cannot read the file" in response.json()["detail"]
    for path in ("/generate?seed=1", "/generate?seed=1&model=bad", "/models/bad"):
        assert (await client.get(path)).status_code == 503


async def test_metrics_count_by_route_template(client: httpx.AsyncClient) -> None:
    """Labels are templates and known words, never what a client wrote."""
    await client.get("/models/tiny")
    await client.get("/models/nobody")
    await client.get("/secret/path")
    await client.request("BREW", "/generate")
    text = (await client.get("/metrics")).text
    for line in (
        'cogan_http_requests_total{code="200",method="GET",route="/models/{name}"} 1.0',
        'cogan_http_requests_total{code="404",method="GET",route="/models/{name}"} 1.0',
        'cogan_http_requests_total{code="404",method="GET",route="unmatched"} 1.0',
        'cogan_http_requests_total{code="405",method="OTHER",route="/generate"} 1.0',
        "cogan_ready 1.0",
        "cogan_requests_in_flight 1.0",
    ):
        assert line in text
    assert "nobody" not in text
    assert "secret" not in text


async def test_metrics_have_the_names_that_dashboards_use(client: httpx.AsyncClient) -> None:
    """A renamed metric breaks somebody's dashboard."""
    await client.get("/generate?seed=1")
    await client.get("/generate?seed=1")
    text = (await client.get("/metrics")).text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE cogan")}
    assert {name for name in names if not name.endswith("_created")} == {
        "cogan_batch_size",
        "cogan_batches_total",
        "cogan_cache_hits_total",
        "cogan_cache_misses_total",
        "cogan_encode_duration_seconds",
        "cogan_http_request_duration_seconds",
        "cogan_http_requests_total",
        "cogan_inference_duration_seconds",
        "cogan_model_info",
        "cogan_model_last_run_timestamp_seconds",
        "cogan_model_load_seconds",
        "cogan_model_request_seconds",
        "cogan_model_run_seconds",
        "cogan_models_refused",
        "cogan_processes",
        "cogan_queue_depth",
        "cogan_queue_wait_seconds",
        "cogan_ready",
        "cogan_rejected_total",
        "cogan_requests_in_flight",
        "cogan_samples_total",
        "cogan_shard_pairs_total",
    }
    assert "cogan_cache_hits_total 1.0" in text
    assert 'cogan_inference_duration_seconds_count{model="tiny",provider="cpu"} 1.0' in text


def test_a_default_model_that_is_not_served_stops_the_start(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A misspelt default, or a classifier, is found at the start, not by the first client."""
    tiny_model(name="ant")
    tiny_model(name="cow", kind="classifier")
    for name in ("bee", "cow"):
        with pytest.raises(SettingsError, match=f"'{name}' is not served; generators are ant"):
            create_app(Settings(models_dir=models_dir, default_model=name))


def test_health_may_have_its_own_port(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """Then health is served there alone and needs no key, and the port closes with the service."""
    tiny_model()
    service = start(api_keys="0123456789abcdef", health_port=0)
    line = service.wait_for(lambda line: "url" in line)
    for path in ("/livez", "/readyz", "/metrics"):
        assert httpx.get(service.url + path, headers={"x-api-key": "0123456789abcdef"}).status_code == 404
        assert httpx.get(line["health_url"] + path).status_code == 200
    for path in ("/docs", "/openapi.json", "/generate?seed=1", "/models"):
        httpx.get(service.url + path, headers={"x-api-key": "0123456789abcdef"})  # which may be kept
        assert httpx.get(line["health_url"] + path).status_code == 404
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(15) == 0
