"""/v2/repository lists what there is, and loads and unloads it over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio
INDEX = "/v2/repository/index"
TINY = "/v2/repository/models/tiny"


async def test_a_new_version_is_loaded(client: httpx.AsyncClient, tiny_model: Callable[..., Path]) -> None:
    """The answer says what is served now, and so do all other routes."""
    tiny_model(version="2")
    answer = await client.post(f"{TINY}/load")
    ready = {"name": "tiny", "version": "2", "state": "READY", "reason": ""}
    assert (answer.status_code, answer.json()) == (200, ready)
    old = {"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "not loaded"}
    assert (await client.post(INDEX)).json() == [old, ready]
    assert (await client.post(INDEX, json={"ready": True})).json() == [ready]
    assert (await client.get("/v2/models/tiny/versions/1/ready")).status_code == 404
    assert (await client.get("/v2/models/tiny/versions/2/ready")).json() == {"name": "tiny", "ready": True}


async def test_a_broken_version_is_a_problem_with_the_reason(
    client: httpx.AsyncClient, tiny_model: Callable[..., Path]
) -> None:
    """The answer, the index and /models say why; the version before it goes on."""
    tiny_model(version="2").write_bytes(b"junk")
    problem = (await client.post(f"{TINY}/load")).json()
    assert (problem["status"], problem["code"]) == (422, "load_refused")
    assert "cannot read the file" in problem["error"]
    assert "version 1 is served" in problem["error"]
    index = (await client.post(INDEX)).json()
    assert [entry["state"] for entry in index] == ["READY", "UNAVAILABLE"]
    assert "cannot read the file" in index[1]["reason"]
    assert (await client.get("/generate?seed=1")).json()["version"] == "1"


async def test_an_unloaded_model_is_gone_until_it_is_loaded(client: httpx.AsyncClient) -> None:
    """Unloading twice, and loading what is not there, are 404 with what there is."""
    assert (await client.post(f"{TINY}/unload", json={"parameters": {}})).json()["reason"] == "unloaded"
    assert (await client.post(f"{TINY}/unload")).status_code == 404
    assert (await client.get("/v2/health/ready")).status_code == 503
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    problem = (await client.post("/v2/repository/models/nobody/load")).json()
    assert (problem["status"], problem["errors"][0]["allowed"]) == (404, ["tiny"])
    assert (await client.post(f"{TINY}/load")).status_code == 200
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (f"{TINY}/load", {"parameters": {"config": "{}"}}, "/parameters/config"),
        (f"{TINY}/unload", {"parameters": {"force": True}}, "/parameters/force"),
        (INDEX, {"ready": "yes"}, "/ready"),
        (INDEX, [], ""),
    ],
)
async def test_unknown_parameters_are_refused(
    client: httpx.AsyncClient, path: str, body: Any, pointer: str
) -> None:
    """What would be passed over is refused, and nothing is changed."""
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert (await client.get("/v2/models/tiny/ready")).status_code == 200


async def test_model_control_can_be_turned_off(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Then nobody changes over HTTP what is served, and the server does not say that one could."""
    tiny_model()
    client = connect(model_control=False)
    for path in (f"{TINY}/load", f"{TINY}/unload", INDEX):
        assert (await client.post(path)).status_code == 404
    assert "model_repository" not in (await client.get("/v2")).json()["extensions"]
    assert "model_repository" in (await connect().get("/v2")).json()["extensions"]
