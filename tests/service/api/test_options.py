"""Reading requests: format, timeout, query and body."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.options import choose_format
from service.errors import NotAcceptable
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from tests.running import START


@pytest.mark.parametrize(
    ("requested", "accept", "chosen"),
    [
        (None, None, "json"),
        (None, "*/*", "json"),
        (None, "image/*", "png"),
        (None, "image/*, image/png;q=0", "webp"),
        (None, "IMAGE/WebP", "webp"),
        (None, "application/json;q=0.5, image/png", "png"),
        (None, "image/png;q=0.5, */*;q=0.1", "png"),
        (None, "image/tiff, */*;q=0.1", "json"),
        (None, "image/png;q=high, application/zip", "zip"),
        (None, "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8", "webp"),
        ("npz", "image/png", "npz"),
    ],
)
def test_best_format_is_chosen(requested: str | None, accept: str | None, chosen: str) -> None:
    """The name wins; else the greatest weight, by the most specific range; else the first of equals."""
    assert choose_format(requested, accept, PAIR_FORMATS) == chosen


def test_labels_choose_a_format_that_has_room_for_them() -> None:
    """The Accept of a browser's address bar names pictures before all else, and no picture holds labels."""
    bar = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
    for formats in (PAIR_FORMATS, FRAME_FORMATS):
        assert choose_format(None, bar, formats) == "webp"
        assert choose_format(None, bar, formats, labels=True) == "json"
    with pytest.raises(NotAcceptable, match="available are application/json, application/zip, application/x-npz"):
        choose_format(None, "image/png", PAIR_FORMATS, labels=True)


@pytest.mark.parametrize("accept", ["image/tiff", "*/*;q=0", ";", "application/json;q=0"])
def test_nothing_acceptable_is_an_error(accept: str) -> None:
    """A client that accepts nothing that there is, is not sent it anyway."""
    with pytest.raises(NotAcceptable, match="application/json"):
        choose_format(None, accept, PAIR_FORMATS)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/generate", "/v2/models/tiny/infer"])
async def test_a_request_says_how_long_it_waits(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    held: Callable[[], threading.Event],
    path: str,
) -> None:
    """`X-Request-Timeout` shortens the deadline and never lengthens it; a wrong one is refused."""
    tiny_model()
    latents = {"name": "latent", "shape": [1, 8], "datatype": "FP32", "data": [0] * 8}
    body: dict[str, Any] = {"inputs": [latents]} if "infer" in path else {"latents": [[0] * 8]}
    for longest, seconds, least in ((START, "0.05", 0.04), (0.2, "1e9", 0.19)):
        client = connect(deadline_s=longest)
        gate, start = held(), time.monotonic()
        response = await client.post(path, json=body, headers={"x-request-timeout": seconds})
        assert response.status_code == 504
        assert least < time.monotonic() - start < START / 2
        gate.set()
    for seconds in ("soon", "0", "-1", "nan"):
        response = await client.post(path, json=body, headers={"x-request-timeout": seconds})
        assert response.status_code == 422
        wrong = {"place": "header", "pointer": "/x-request-timeout", "value": seconds}
        assert response.json()["errors"] == [wrong | {"allowed": "seconds, above 0"}]


@pytest.mark.anyio
async def test_a_repeated_parameter_is_refused_unless_it_is_a_list(client: httpx.AsyncClient) -> None:
    """Of two seeds one would be ignored, so it is 422; `seeds` and `domains` may be repeated."""
    response = await client.get("/generate?seed=1&seed=2")
    assert response.status_code == 422
    wrong = {"place": "query", "pointer": "/seed", "allowed": "once"}
    assert [{k: v for k, v in one.items() if k != "value"} for one in response.json()["errors"]] == [wrong]
    assert (await client.get("/generate?seeds=1&seeds=2&domains=edge&domains=digit")).status_code == 200
    unknown = (await client.get("/generate?seeds[]=1&seeds[]=2")).json()
    assert [(one["pointer"], "seeds" in one["allowed"]) for one in unknown["errors"]] == [("/seeds[]", True)]


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["seed=1&domains=digit,edge", "seeds=1,2", "seeds=3&seeds=1,2"])
async def test_a_list_joined_by_commas_is_refused_with_the_remedy(client: httpx.AsyncClient, query: str) -> None:
    """Each value has a field of its own."""
    response = await client.get(f"/generate?{query}")
    name, joined = query.rpartition("&")[2].split("=")
    assert response.status_code == 422
    assert "&".join(f"{name}={value}" for value in joined.split(",")) in response.json()["detail"]
    wrong = {"place": "query", "pointer": f"/{name}", "value": joined, "allowed": "one value"}
    assert response.json()["errors"] == [wrong]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "pointer"),
    [("seed=x", "/seed"), ("seed=1&sede=2", "/sede"), ("seeds=1&seeds=x", "/seeds/1"), ("seed=1&count=1.5", "/count")],
)
async def test_wrong_parameters_are_pointed_at(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    """A wrong value or an unknown name in a query is 422 with its place."""
    response = await client.get(f"/generate?{query}")
    assert response.status_code == 422
    assert [(one["place"], one["pointer"]) for one in response.json()["errors"]] == [("query", pointer)]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", ""])
async def test_a_body_that_is_not_called_json_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    """A body of another content type, or of none, is 415."""
    response = await client.post("/generate", content=b'{"seed": 1}', headers={"content-type": kind})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
async def test_a_body_of_any_json_type_is_read(client: httpx.AsyncClient, kind: str) -> None:
    """JSON and types that are JSON are read, with parameters and in any case."""
    response = await client.post("/generate", content=b'{"seed": 1}', headers={"content-type": kind})
    assert response.status_code == 200
