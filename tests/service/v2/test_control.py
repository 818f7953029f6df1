"""/v2/repository lists the models, and loads and unloads them, if that is turned on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio
INDEX = "/v2/repository/index"
TINY = "/v2/repository/models/tiny"
ROUTES = (INDEX, f"{TINY}/load", f"{TINY}/unload")
KEY = "a-key-that-is-long-enough"


@pytest.fixture
def client(tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    """Return a client of an app with one model and model control."""
    tiny_model()
    return connect(model_control=True)


async def test_a_new_version_is_loaded(client: httpx.AsyncClient, tiny_model: Callable[..., Path]) -> None:
    """The response names the version that is served now, and so do all other routes."""
    tiny_model(version="2")
    response = await client.post(f"{TINY}/load")
    ready = {"name": "tiny", "version": "2", "state": "READY", "reason": ""}
    assert (response.status_code, response.json()) == (200, ready)
    old = {"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "not loaded"}
    assert (await client.post(INDEX)).json() == [old, ready]
    assert (await client.post(INDEX, json={"ready": True})).json() == [ready]
    assert (await client.get("/v2/models/tiny/versions/1/ready")).status_code == 404
    assert (await client.get("/v2/models/tiny/versions/2/ready")).json() == {"name": "tiny", "ready": True}


async def test_a_broken_version_is_a_problem_with_the_reason(
    client: httpx.AsyncClient, tiny_model: Callable[..., Path]
) -> None:
    """The response, the index and /models give the reason; the version before it stays."""
    tiny_model(version="2").write_bytes(b"junk")
    problem = (await client.post(f"{TINY}/load")).json()
    assert (problem["status"], problem["code"]) == (422, "load_refused")
    assert "cannot read the file" in problem["error"]
    assert "version 1 is served" in problem["error"]
    index = (await client.post(INDEX)).json()
    assert [entry["state"] for entry in index] == ["READY", "UNAVAILABLE"]
    assert "cannot read the file" in index[1]["reason"]
    assert "cannot read the file" in (await client.get("/models")).json()["refused"][0]["reason"]
    assert (await client.get("/generate?seed=1")).json()["version"] == "1"


async def test_every_folder_is_listed_in_words(
    client: httpx.AsyncClient, tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """A name that is no UTF-8 and a number that is no version are listed, here and in /models, with the reason."""
    tiny_model(version="2").parent.rename(models_dir / "tiny" / "02")
    tiny_model(name="here").parents[1].rename(models_dir / os.fsdecode(b"\xff"))
    assert (await client.post("/v2/repository/models/tiny/load")).status_code == 422
    index = (await client.post(INDEX, json={"ready": None})).json()
    assert [(one["name"], one["version"]) for one in index] == [("\\xff", "1"), ("tiny", "1"), ("tiny", "02")]
    assert "'02'; allowed" in index[2]["reason"]
    assert (await client.get("/models")).json()["refused"][-1]["path"] == "tiny/02/model.onnx"


async def test_a_folder_that_cannot_be_read_hides_no_other(
    client: httpx.AsyncClient, tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """What comes after an unreadable folder is listed all the same."""
    (models_dir / "loop").symlink_to("loop")
    tiny_model(version="2")
    index = (await client.post(INDEX)).json()
    assert [(one["name"], one["version"]) for one in index] == [("tiny", "1"), ("tiny", "2")]


async def test_an_unknown_name_lists_those_that_there_are_in_words(
    client: httpx.AsyncClient, tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """A folder's name that is no UTF-8 is written out, as UTF-8 has no lone surrogates."""
    tiny_model(name="here").parents[1].rename(models_dir / os.fsdecode(b"\xff"))
    response = await client.post("/v2/repository/models/nothing/load")
    assert response.status_code == 404
    assert response.json()["errors"][0]["allowed"] == ["\\xff", "tiny"]
    assert "there are \\xff, tiny" in response.json()["detail"]


async def test_an_unloaded_model_is_gone_until_it_is_loaded(client: httpx.AsyncClient) -> None:
    """Unloading twice, and loading a model that has no folder, are 404 and name the models that there are."""
    assert (await client.post(f"{TINY}/unload", json={"parameters": {}})).json()["reason"] == "unloaded"
    assert (await client.post(f"{TINY}/unload")).status_code == 404
    assert (await client.get("/v2/health/ready")).status_code == 503
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    problem = (await client.post("/v2/repository/models/nobody/load")).json()
    assert (problem["status"], problem["errors"][0]["allowed"]) == (404, ["tiny"])
    assert (await client.post(f"{TINY}/load")).status_code == 200
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{TINY}/load", {"parameters": {"config": '{"backend": "onnxruntime"}'}}),
        (f"{TINY}/load", {"parameters": None, "more": 1}),
        (f"{TINY}/unload", {"parameters": {"unload_dependents": False}}),
        (INDEX, {"ready": False, "repository_name": "models"}),
    ],
)
async def test_parameters_that_mean_nothing_here_are_ignored(client: httpx.AsyncClient, path: str, body: Any) -> None:
    """A configuration, dependents and unknown fields do not change what a request does."""
    assert (await client.post(path, json=body)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (f"{TINY}/load", {"parameters": []}, "/parameters"),
        (f"{TINY}/unload", {"parameters": "x"}, "/parameters"),
        (INDEX, {"ready": "yes"}, "/ready"),
        (INDEX, [], ""),
    ],
)
async def test_wrong_bodies_are_refused(client: httpx.AsyncClient, path: str, body: Any, pointer: str) -> None:
    """A field of a wrong type is pointed at, and nothing changes."""
    response = await client.post(path, json=body)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)
    assert (await client.get("/v2/models/tiny/ready")).status_code == 200


async def test_files_in_a_request_are_refused_by_name(client: httpx.AsyncClient) -> None:
    """A model that a request sends would not be the one that is loaded, so it is refused and nothing changes."""
    body = {"parameters": {"config": "{}", "file:1/model.onnx": "CAcSAA=="}}
    problem = (await client.post(f"{TINY}/load", json=body)).json()
    assert (problem["status"], problem["code"]) == (501, "unsupported")
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["value"]) == ("/parameters", "file:1/model.onnx")
    assert "cannot send files" in problem["error"]


async def test_model_control_is_off_by_default(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Unless it is turned on, no request changes what is served, and the answer says who can turn it on."""
    tiny_model()
    client = connect()
    for path in ROUTES:
        problem = (await client.post(path)).json()
        assert (problem["status"], problem["code"]) == (404, "unknown_path")
        assert "COGAN_MODEL_CONTROL=true" in problem["error"]
    assert (await client.get("/readyz")).status_code == 200
    assert "model_repository" not in (await client.get("/v2")).json()["extensions"]
    assert not [path for path in (await client.get("/openapi.json")).json()["paths"] if "repository" in path]
    assert "model_repository" in (await connect(model_control=True).get("/v2")).json()["extensions"]


CROSS_SITE = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "content-type": "text/plain"},
    {"origin": "https://evil.example"},
    {"origin": "http://service.evil.example", "content-type": "text/plain"},
    {"origin": "http://service:8001"},
    {"origin": "null"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
@pytest.mark.parametrize("path", ROUTES)
async def test_pages_of_other_sites_are_refused(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
    """What another site's page has a browser send is 403, before its body is looked at, and nothing changes."""
    response = await client.post(path, content=b"{}", headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("headers", CROSS_SITE)
async def test_a_listed_origin_may_not_control_models(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], headers: dict[str, str]
) -> None:
    """Origins that may send requests may not load or unload models."""
    tiny_model()
    client = connect(model_control=True, cors_origins="*")
    assert (await client.post(f"{TINY}/unload", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "same-origin", "origin": "http://public.example"}, {"origin": "http://service"}, {}]
)
async def test_the_docs_page_and_programs_may(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """A page of this origin, also behind a proxy that changes Host, and a program without either header may."""
    json = {"content-type": "application/json"} if headers else {}
    assert (await client.post(f"{TINY}/load", content=b"{}", headers=headers | json)).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
@pytest.mark.parametrize("path", ROUTES)
async def test_bodies_that_are_not_json_are_refused(client: httpx.AsyncClient, path: str, kind: str) -> None:
    """The content types that a browser sends without asking first are 415, and nothing changes."""
    response = await client.post(path, content=b"{}", headers={"content-type": kind})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert (await client.get("/readyz")).status_code == 200


async def test_a_key_is_needed_if_keys_are_set(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Model control needs a key like every other route that is not public."""
    tiny_model()
    client = connect(model_control=True, api_keys=KEY)
    for path in ROUTES:
        assert (await client.post(path)).status_code == 401
    assert (await client.get("/readyz")).status_code == 200
    for path in ROUTES:
        assert (await client.post(path, headers={"authorization": f"Bearer {KEY}"})).status_code == 200
