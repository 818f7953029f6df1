"""A repeated request is answered from the response cache: no routing, no parsing, and by a model that is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from service.app import create_app
from service.engine.onnx_model import OnnxModel
from service.http.middleware import RequestMiddleware
from service.http.response_cache import MAX_KEY, OVERHEAD, ResponseCache, matches
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.running import START

pytestmark = pytest.mark.anyio
PATHS = ["/generate?seed=7", "/generate?seeds=1&seeds=2&format=npz", "/interpolate?from=1&to=2&format=gif"]
KEY = "secret-secret-secret"
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def app(tiny_model: Callable[..., Path], models_dir: Path) -> FastAPI:
    """Return an app with one model."""
    tiny_model()
    return create_app(Settings(models_dir=models_dir, processes=1))


@pytest.fixture
def client(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of the app."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


def forbid_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every request fail that reaches a route."""

    async def fail(*_: object) -> None:
        raise AssertionError("routed")

    monkeypatch.setattr(RequestMiddleware, "_find_app", lambda *_: fail)


@pytest.mark.parametrize("path", PATHS)
async def test_a_repeat_is_answered_without_routing(
    client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same bytes and headers, except for its id and timing; HEAD and 304 as well."""
    first = await client.get(path)
    forbid_routes(monkeypatch)
    again, head = await client.get(path), await client.head(path)
    assert again.content == first.content
    assert head.content == b""
    for answer in (again, head):
        changed = {name for name in first.headers if answer.headers.get(name) != first.headers[name]}
        assert changed == {"x-request-id", "server-timing"}
        assert answer.headers.keys() == first.headers.keys()
    unchanged = await client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == first.headers["etag"]


async def test_head_fills_the_cache_for_get(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are computed alike, so that either is a repeat of the other."""
    head = await client.head(PATHS[0])
    forbid_routes(monkeypatch)
    get = await client.get(PATHS[0])
    assert (get.status_code, len(get.content)) == (200, int(head.headers["content-length"]))


async def test_a_body_belongs_to_the_request(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST is cached by its body and its Content-Type, and has no 304."""
    first = await client.post("/generate", json={"seed": 7})
    assert (await client.post("/generate", content=first.request.content)).status_code == 415
    assert (await client.request("GET", "/generate", content=first.request.content)).content != first.content
    forbid_routes(monkeypatch)
    again = await client.post("/generate", json={"seed": 7}, headers={"if-none-match": "*"})
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["server-timing"] == "cache;dur=0.000"
    assert (await client.post("/generate", json={"seed": 8})).status_code == 500  # it would be routed


async def test_random_responses_are_not_cached(client: httpx.AsyncClient) -> None:
    """Without a seed every response is another."""
    answers = [await client.post("/generate", json={}) for _ in range(3)]
    answers += [await client.get("/generate") for _ in range(3)]
    assert len({answer.content for answer in answers}) == 6


async def test_repeats_are_counted_by_their_route(client: httpx.AsyncClient) -> None:
    """Metrics have the route of a repeat, and that it came from the cache."""
    for _ in range(3):
        await client.get(PATHS[0])
    metrics = (await client.get("/metrics")).text
    assert 'cogan_http_requests_total{code="200",method="GET",route="/generate"} 3.0' in metrics
    assert "cogan_cache_hits_total 2.0" in metrics
    assert "cogan_cache_misses_total 1.0" in metrics


async def test_another_accept_path_or_query_is_another_request(client: httpx.AsyncClient) -> None:
    """What a response depends on is in its key."""
    first = await client.get(PATHS[0])
    as_png = await client.get(PATHS[0], headers={"accept": "image/png"})
    assert as_png.headers["content-type"] == "image/png"
    assert (await client.get(PATHS[0] + "&count=2")).content != first.content
    assert (await client.get("/interpolate?seed=7")).status_code == 422


async def test_all_lines_of_a_header_count(client: httpx.AsyncClient) -> None:
    """The cached response to two lines is not sent to a client that sends only the second."""
    both = httpx.Headers([("accept", "image/png"), ("accept", "application/json;q=0.5")])
    for headers, kind in ((both, "image/png"), ({"accept": "application/json"}, "application/json")):
        for _ in range(2):
            answer = await client.get(PATHS[0], headers=headers)
            assert answer.headers["content-type"] == kind


async def test_a_request_with_a_timeout_goes_to_its_route(client: httpx.AsyncClient) -> None:
    """A header that the route refuses is refused for a repeat, too, and where nothing has changed."""
    etag = (await client.get(PATHS[0])).headers["etag"]
    wrong = {"x-request-timeout": "44u", "if-none-match": etag}
    assert (await client.get(PATHS[0], headers=wrong)).status_code == 422
    assert (await client.get(PATHS[0], headers={"x-request-timeout": "44u"})).status_code == 422
    assert (await client.get(PATHS[0], headers={"x-request-timeout": "44"})).status_code == 200


async def test_new_models_empty_the_cache(
    app: FastAPI, client: httpx.AsyncClient, tiny_model: Callable[..., Path]
) -> None:
    """After a change of the models nothing is sent that the old one computed, and no 304 for it."""
    old = await client.get(PATHS[0])
    tiny_model(("b", "a"), version="2")
    await app.state.loader.refresh()
    new = await client.get(PATHS[0], headers={"if-none-match": old.headers["etag"]})
    assert (new.status_code, new.json()["version"]) == (200, "2")
    await app.state.loader.unload("tiny")
    assert (await client.get(PATHS[0])).status_code == 503


async def test_what_an_old_model_computes_late_is_not_cached(
    app: FastAPI, client: httpx.AsyncClient, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was accepted before a change is answered by the old model, its repeats by the new one."""
    old, gate = app.state.registry.model("tiny"), threading.Event()
    monkeypatch.setattr(old, "run", lambda inputs: gate.wait(START) and OnnxModel.run(old, inputs))
    slow = asyncio.create_task(client.get(PATHS[0]))
    try:
        async with asyncio.timeout(START):
            while not app.state.registry.busy:
                await asyncio.sleep(0.01)
        tiny_model(version="2")
        await app.state.loader.refresh()
        assert not slow.done()
    finally:
        gate.set()
    assert (await slow).json()["version"] == "1"
    assert (await client.get(PATHS[0])).json()["version"] == "2"


async def test_keys_are_checked_every_time(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """A client without a key gets nothing from the cache, however often another sent the same request."""
    tiny_model()
    client = connect(api_keys=KEY)
    assert (await client.get(PATHS[0], headers={"x-api-key": KEY})).status_code == 200
    assert (await client.get(PATHS[0])).status_code == 401


async def test_repeats_count_for_the_rate_limit(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """The cache stands behind the limit."""
    tiny_model()
    client = connect(rate_limit=0.01, rate_burst=2)
    assert [(await client.get(PATHS[0])).status_code for _ in range(3)] == [200, 200, 429]


async def test_without_a_size_there_is_no_cache(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """COGAN_CACHE_BYTES = 0 turns it off."""
    tiny_model()
    client = connect(cache_bytes=0)
    first, second = [await client.get(PATHS[0]) for _ in range(2)]
    assert first.content == second.content
    assert "cogan_cache_hits_total 0.0" in (await client.get("/metrics")).text


class Cache:
    """A cache and the requests to it, by their query."""

    def __init__(self, max_bytes: int) -> None:
        self.cache = ResponseCache(max_bytes, lambda: 0, Metrics())

    def find(self, query: bytes, body: bytes = b"") -> bool:
        """Return whether a request is answered."""
        self.scope: Scope = {"type": "http", "method": "POST", "path": "/generate", "query_string": query}
        return self.cache.find(self.scope, {b"accept": b"*/*"}, body) is not None

    def store(self, query: bytes, size: int, body: bytes = b"") -> None:
        """Store a response of so many bytes."""
        self.find(query, body)
        self.scope["route"] = Route("/generate", Response)
        self.cache.store(self.scope, Response(bytes(size)), None)


def test_least_recently_used_responses_are_dropped_first() -> None:
    """A third response that does not fit drops the one unused for longest."""
    cache = Cache(2 * (10 + OVERHEAD))
    cache.store(b"old", 10)
    cache.store(b"new", 10)
    assert cache.find(b"old")
    cache.store(b"newest", 10)
    assert [cache.find(query) for query in (b"new", b"old", b"newest")] == [False, True, True]


def test_many_small_responses_are_bounded() -> None:
    """What a cached response takes besides its body counts as well."""
    cache = Cache(10 * OVERHEAD)
    for i in range(1000):
        cache.store(b"%d" % i, 0)
    assert sum(cache.find(b"%d" % i) for i in range(1000)) == 10


def test_a_response_larger_than_the_cache_is_not_cached() -> None:
    """One huge response does not empty the cache."""
    cache = Cache(100 + OVERHEAD)
    cache.store(b"small", 1)
    cache.store(b"huge", 101)
    assert (cache.find(b"small"), cache.find(b"huge")) == (True, False)


def test_storing_twice_counts_once() -> None:
    """The same response stored again, as two requests at once do, takes its room once."""
    cache = Cache(2 * (10 + OVERHEAD))
    for _ in range(5):
        cache.store(b"a", 10)
    cache.store(b"b", 10)
    assert cache.find(b"a")


def test_long_requests_are_not_cached() -> None:
    """Query, body and headers of a key are bounded together."""
    cache, half = Cache(2**20), b"x" * (MAX_KEY // 2)
    cache.store(half, 10, half)
    assert not cache.find(half, half)
    cache.store(half, 10)
    assert cache.find(half)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_if_none_match_is_a_list_of_tags(condition: str, expected: bool) -> None:
    """RFC 9110, section 13.1.2: strong or weak tags, separated by commas, or any."""
    assert matches(condition, "a") == expected


@pytest.mark.anyio
async def test_a_304_is_remembered_without_its_body(client: httpx.AsyncClient) -> None:
    """In a process that has never sent the body, a second 304 is a hit, and a request without condition is computed."""
    async with client:
        first = await client.get("/generate?seed=7")
        condition = {"If-None-Match": first.headers["etag"]}
        path = "/generate?seed=7&count=1"  # the same response, under another cache key
        answers = [await client.get(path, headers=condition) for _ in range(2)]
        whole = await client.get(path)
        hits = (await client.get("/metrics")).text
    assert [answer.status_code for answer in answers] == [304, 304]
    assert "cogan_cache_hits_total 1.0" in hits
    assert (whole.status_code, whole.content) == (200, first.content)
