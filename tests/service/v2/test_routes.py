"""/v2: health, metadata, configuration and statistics of models of every kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.access import POLLED

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]
LATENT = {"name": "latent", "shape": [1, 8], "datatype": "FP32", "data": [0.5] * 8}
IMAGE = {"name": "digit", "shape": [1, 8, 6, 1], "datatype": "UINT8", "data": [7] * 48}


@pytest.fixture
def mixed(tiny_model: Callable[..., Path], connect: Connect) -> httpx.AsyncClient:
    """Return a client of an app with a classifier, an encoder and a generator, in that order by name."""
    tiny_model(name="a_reader", kind="classifier")
    tiny_model(("digit",), name="b_encoder", kind="encoder")
    tiny_model(name="c_maker")
    return connect()


async def count(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Return a model's statistics."""
    await asyncio.sleep(0.05)  # they are counted while the response is sent
    (found,) = (await client.get(f"/v2/models/{name}/stats")).json()["model_stats"]
    return dict(found)


async def test_names_are_listed(mixed: httpx.AsyncClient) -> None:
    """GET /v2/models has the names of all kinds, as KServe's own server has it."""
    assert (await mixed.get("/v2/models")).json() == {"models": ["a_reader", "b_encoder", "c_maker"]}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("a_reader", {"digit": ("UINT8", [-1, 8, 6, 1])}, {"classes": ("FP32", [-1, 3])}),
        (
            "b_encoder",
            {"digit": ("UINT8", [-1, 8, 6, 1]), "previous": ("FP32", [-1, 8])},
            {"latent": ("FP32", [-1, 8])},
        ),
        (
            "c_maker",
            {"latent": ("FP32", [-1, 8])},
            {"digit": ("UINT8", [-1, 8, 6, 1]), "edge": ("UINT8", [-1, 10, 9, 3])},
        ),
    ],
)
async def test_tensors_are_described_by_kind(
    mixed: httpx.AsyncClient, name: str, inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    """Metadata and configuration have the tensors of the kind, with the batch axis and without."""
    metadata = (await mixed.get(f"/v2/models/{name}")).json()
    config = (await mixed.get(f"/v2/models/{name}/versions/1/config")).json()
    for part, expected in (("input", inputs), ("output", outputs)):
        assert {t["name"]: (t["datatype"], t["shape"]) for t in metadata[f"{part}s"]} == expected
        assert {t["name"]: (t["data_type"], t["dims"]) for t in config[part]} == {
            tensor: (f"TYPE_{datatype}", shape[1:]) for tensor, (datatype, shape) in expected.items()
        }


async def test_the_batch_size_is_what_one_request_may_have(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """A load generator that sends `max_batch_size` rows is answered."""
    tiny_model()
    client = connect(max_pairs=5)
    config = (await client.get("/v2/models/tiny/config")).json()
    assert config["max_batch_size"] == 5
    largest = LATENT | {"shape": [5, 8], "data": [0] * 40}
    assert (await client.post("/v2/models/tiny/infer", json={"inputs": [largest]})).status_code == 200


async def test_statistics_count_requests_of_every_kind(mixed: httpx.AsyncClient) -> None:
    """What was asked by /generate, /interpolate and /v2 is in the same statistics; each model has its own."""
    await mixed.get("/generate?seed=1&count=3")
    await mixed.post("/generate", json={"latents": [[0.0] * 8]})
    await mixed.get("/interpolate?from=1&to=2&steps=4")
    await mixed.post("/v2/models/c_maker/infer", json={"inputs": [LATENT]})
    for name, inputs in (("a_reader", [IMAGE]), ("b_encoder", [IMAGE, LATENT | {"name": "previous"}])):
        assert (await mixed.post(f"/v2/models/{name}/infer", json={"inputs": inputs})).status_code == 200
    found = await count(mixed, "c_maker")
    assert found["inference_stats"]["success"]["count"] == 4
    assert found["inference_count"] == 3 + 1 + 4 + 1
    for name in ("a_reader", "b_encoder"):
        found = await count(mixed, name)
        assert (found["inference_stats"]["success"]["count"], found["inference_count"]) == (1, 1)
    whole = (await mixed.get("/v2/models/stats")).json()["model_stats"]
    assert [one["name"] for one in whole] == ["a_reader", "b_encoder", "c_maker"]


async def test_statistics_come_from_the_metrics(mixed: httpx.AsyncClient) -> None:
    """/metrics and the statistics agree, also on requests that failed; a repeat from the cache is in neither."""
    for _ in range(2):
        await mixed.get("/generate?seed=1")
    failed = LATENT | {"data": [60] + [0] * 7}  # on which a tiny model fails
    assert (await mixed.post("/v2/models/c_maker/infer", json={"inputs": [failed]})).status_code == 500
    found = (await count(mixed, "c_maker"))["inference_stats"]
    assert (found["success"]["count"], found["fail"]["count"]) == (1, 1)
    labels, text = 'model="c_maker"', (await mixed.get("/metrics")).text
    for outcome in ("success", "fail"):
        line = f'cogan_model_request_seconds_count{{{labels},outcome="{outcome}",version="1"}} 1.0'
        assert line in text


async def test_a_model_without_requests_has_zeros(mixed: httpx.AsyncClient) -> None:
    """Statistics are there before the first request, and count nothing."""
    found = await count(mixed, "a_reader")
    assert (found["inference_count"], found["execution_count"], found["last_inference"]) == (0, 0, 0)
    assert found["batch_stats"] == []


async def test_polled_routes_are_not_logged(mixed: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Health and metrics, which are asked every few seconds, leave no line; other routes leave one each."""
    logger = logging.getLogger("cogan.access")
    logger.setLevel(logging.INFO)
    try:
        for path in sorted(POLLED):
            assert (await mixed.get(path)).status_code == 200
        assert "cogan.access" not in capsys.readouterr().err
        await mixed.get("/v2/models")
        assert '"message": "GET /v2/models 200"' in capsys.readouterr().err
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("path", ["", "/config", "/ready", "/stats", "/versions/2", "/versions/2/stats"])
async def test_unknown_models_and_versions_are_404(mixed: httpx.AsyncClient, path: str) -> None:
    """A model or version that is not served is a problem that names those that are."""
    name = "c_maker" if "versions" in path else "nobody"
    problem = (await mixed.get(f"/v2/models/{name}{path}")).json()
    assert (problem["status"], problem["code"]) == (404, "unknown_model")
    assert problem["errors"][0]["allowed"] == (["1"] if "versions" in path else ["a_reader", "b_encoder", "c_maker"])
    assert problem["error"] == problem["detail"]
