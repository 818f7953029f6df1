"""What was asked twice is answered as it was, without routing or parsing, by a model that is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Route

from service.app import create_app
from service.cache import AnswerCache
from service.http.repeats import LONGEST_QUESTION, MOST_KNOWN, Repeats
from service.settings import Settings
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio
PATHS = ["/generate?seed=7", "/generate?seeds=1&seeds=2&format=npz", "/interpolate?from=1&to=2&format=gif"]


@pytest.fixture
def app(tiny_model: Callable[..., Path], models_dir: Path) -> Any:
    """Return an app with one model."""
    tiny_model()
    return create_app(Settings(models_dir=models_dir))


@pytest.fixture
def client(app: Any) -> httpx.AsyncClient:
    """Return a client of the app."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


def forbid_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every request that is routed, or whose body is parsed, fail."""

    def fail(*_: object) -> None:
        raise AssertionError("not known")

    monkeypatch.setattr(Route, "matches", fail)
    monkeypatch.setattr("service.routes.image_routes.parse_body", fail)


@pytest.mark.parametrize("path", PATHS)
async def test_a_repeat_is_answered_without_routing(
    client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same bytes and headers, but for its id and timing; HEAD and 304 as well."""
    first = await client.get(path)
    await client.get(path)
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


async def test_a_body_is_a_question_too(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that came twice is not parsed a third time; another is another question, and none has 304."""
    first, *_ = [await client.post("/generate", json={"seed": 7}) for _ in range(2)]
    assert (await client.post("/generate", content=first.request.content)).status_code == 415
    assert (await client.request("GET", "/generate", content=first.request.content)).content != first.content
    forbid_routes(monkeypatch)
    again = await client.post("/generate", json={"seed": 7}, headers={"if-none-match": "*"})
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["server-timing"] == "cache;dur=0.000"
    assert (await client.post("/generate", json={"seed": 8})).status_code == 500


async def test_what_changes_is_no_repeat(client: httpx.AsyncClient) -> None:
    """Without a seed every answer is another."""
    answers = [await client.post("/generate", json={}) for _ in range(3)]
    answers += [await client.get("/generate") for _ in range(3)]
    assert len({answer.content for answer in answers}) == 6


async def test_repeats_are_counted_by_their_route(client: httpx.AsyncClient) -> None:
    """Metrics know the route of a repeat, and that its answer was kept."""
    for _ in range(3):
        await client.get(PATHS[0])
    metrics = (await client.get("/metrics")).text
    assert 'cogan_http_requests_total{code="200",method="GET",route="/generate"} 3.0' in metrics
    assert "cogan_cache_hits_total 2.0" in metrics


async def test_another_wish_is_another_question(client: httpx.AsyncClient) -> None:
    """What differs in `Accept`, path or query is no repeat."""
    first = await client.get(PATHS[0])
    assert (await client.get(PATHS[0], headers={"accept": "image/png"})).headers[
        "content-type"
    ] == "image/png"
    assert (await client.get(PATHS[0] + "&count=2")).content != first.content
    assert (await client.get("/interpolate?seed=7")).status_code == 422


async def test_of_two_lines_of_a_header_the_first_counts(client: httpx.AsyncClient) -> None:
    """What was answered by the first wish is no repeat for who has the second alone."""
    both = httpx.Headers([("accept", "image/png"), ("accept", "application/json")])
    for headers, kind in ((both, "image/png"), ({"accept": "application/json"}, "application/json")):
        for _ in range(2):
            answer = await client.get(PATHS[0], headers=headers)
            assert answer.headers["content-type"] == kind


async def test_a_wrong_header_is_refused_every_time(client: httpx.AsyncClient) -> None:
    """A header that a route would refuse is refused in a repeat, too, and where nothing has changed."""
    etag = (await client.get(PATHS[0])).headers["etag"]
    wrong = {"x-request-timeout": "44u", "if-none-match": etag}
    assert (await client.get(PATHS[0], headers=wrong)).status_code == 422
    assert (await client.get(PATHS[0], headers={"x-request-timeout": "44u"})).status_code == 422
    assert (await client.get(PATHS[0], headers={"x-request-timeout": "44"})).status_code == 200


async def test_a_new_model_is_asked_anew(
    app: Any, client: httpx.AsyncClient, tiny_model: Callable[..., Path]
) -> None:
    """After a change of the model, nothing that the old one drew is sent, nor is 304."""
    old = await client.get(PATHS[0])
    tiny_model(("b", "a"), version="2")
    await app.state.changes.reload()
    new = await client.get(PATHS[0], headers={"if-none-match": old.headers["etag"]})
    assert (new.status_code, new.json()["version"]) == (200, "2")
    await app.state.changes.unload("tiny")
    assert (await client.get(PATHS[0])).status_code == 503


async def test_keys_are_asked_for_every_time(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Who has no key is told nothing, however often another asked the same."""
    tiny_model()
    client = connect(api_keys="secret-secret-secret")
    asked = await client.get(PATHS[0], headers={"x-api-key": "secret-secret-secret"})
    assert asked.status_code == 200
    assert (await client.get(PATHS[0])).status_code == 401


def test_what_is_known_is_bounded() -> None:
    """The question not asked for longest is forgotten for a new one, and long ones are not kept."""
    cache = AnswerCache(2**20)
    cache.put("key", b"answer")
    repeats, route = Repeats(cache, lambda: 0, Metrics()), Route("/generate", Response)

    def scope(query: bytes, body: bytes) -> dict[str, Any]:
        scope = {"method": "POST", "path": "/generate", "query_string": query, "route": route}
        scope["answer"] = repeats.answer(scope, {b"accept": b"*/*"}, body)
        return scope

    half = b"x" * (LONGEST_QUESTION // 2)
    questions = [(b"%d" % i, b"{}") for i in range(MOST_KNOWN + 1)]
    for question in (*questions, (half, half)):
        repeats.remember(scope(*question), "key", [], [])
    known = [scope(*question)["answer"] is not None for question in questions]
    assert known == [False, *[True] * MOST_KNOWN]
    assert scope(*questions[1])["answer"] is not None
    repeats.remember(scope(*questions[0]), "key", [], [])
    assert [scope(*question)["answer"] is not None for question in questions[:3]] == [True, True, False]
    assert scope(half, half)["answer"] is None
