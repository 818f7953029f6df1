"""Every request has an id, a response, a log line, and a client that may leave."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from service.app import create_app
from service.http.middleware import RequestMiddleware
from service.settings import Settings
from service.telemetry.logs import configure_logs
from tests.running import START

pytestmark = pytest.mark.anyio
ReadLines = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-123.X_y", True), ("", False), ("a b", False), ("a" * 129, False), ('"};drop', False)]
)
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, sent: str, kept: bool) -> None:
    """An id from outside is returned if it can do no harm; else there is a new one."""
    answer = await client.get("/generate?seed=1", headers={"x-request-id": sent})
    assert (answer.headers["x-request-id"] == sent) == kept
    assert answer.headers["x-request-id"]


@pytest.fixture
def read_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[ReadLines]:
    """Return what reads the log lines on stderr since it was called last."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    uvicorn_level = logging.getLogger("uvicorn").level
    configure_logs("info")
    capsys.readouterr()
    logging.getLogger("httpx").disabled = True  # it logs the other side of each request
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    logging.getLogger("httpx").disabled = False
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(uvicorn_level)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        ("nonsense", None),
    ],
)
async def test_the_trace_is_logged(
    client: httpx.AsyncClient, read_lines: ReadLines, traceparent: str, trace_id: str | None
) -> None:
    """A line has the trace of `traceparent`, so that it is found from the caller's side; not the next one."""
    await client.get("/models", headers={"traceparent": traceparent})
    await client.get("/models")
    first, second = read_lines()
    assert first.get("trace_id") == trace_id
    assert "trace_id" not in second


async def test_requests_are_logged_once(client: httpx.AsyncClient, read_lines: ReadLines) -> None:
    """A line has the route's template, never the path; health and metrics have none."""
    for path in ("/models/secret", "/livez", "/readyz", "/metrics"):
        await client.get(path, headers={"x-request-id": "me"})
    lines = read_lines()
    assert len(lines) == 1
    assert lines[0].pop("duration_ms") >= 0
    assert lines[0].pop("time")
    assert lines[0] == {
        "level": "info",
        "logger": "cogan.access",
        "message": "GET /models/{name} 404",
        "request_id": "me",
        "method": "GET",
        "route": "/models/{name}",
        "status": 404,
    }


@pytest.mark.parametrize("path", ["/generate?seed=7", "/models", "/livez", "/nothing"])
async def test_head_is_get_without_a_body(client: httpx.AsyncClient, path: str) -> None:
    """HEAD has the headers that GET has."""
    head, get = await client.head(path), await client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-length", "content-type", "etag"):
        assert head.headers.get(name) == get.headers.get(name)


@pytest.mark.parametrize(
    "path", ["/generate?seed=7", "/generate?seed=-1", "/interpolate?from=1&to=2", "/translate", "/shards/{number}.tar"]
)
async def test_the_direct_way_answers_as_the_layers_do(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Past FastAPI's layers a request has the same status, headers and body; by a wrong method, too."""

    async def ask() -> list[tuple[int, dict[str, str], bytes]]:
        answers = [await client.request(method, path) for method in ("GET", "HEAD", "POST", "DELETE")]
        changing = {"x-request-id", "server-timing", "content-location"}
        kept = [{k: v for k, v in one.headers.items() if k not in changing} for one in answers]
        return [(one.status_code, headers, one.content) for one, headers in zip(answers, kept, strict=True)]

    direct = await ask()
    monkeypatch.setattr(RequestMiddleware, "_find_app", lambda self, _: self._app)
    layered = await ask()
    assert [(status, headers) for status, headers, _ in direct] == [(status, headers) for status, headers, _ in layered]
    assert [_without_id(body) for *_, body in direct] == [_without_id(body) for *_, body in layered]


def _without_id(body: bytes) -> object:
    """Return a body without the id that a problem names."""
    try:
        return {name: value for name, value in json.loads(body).items() if name != "request_id"}
    except ValueError:
        return body


async def test_a_defect_is_answered_and_logged(
    tiny_model: Callable[..., Path], models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody foresaw is a 500 without its inside, and the log has it under the same id."""
    tiny_model()
    app = create_app(Settings(models_dir=models_dir))

    async def fail() -> None:
        raise RuntimeError("the inside")

    app.get("/fail")(fail)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        answer = await client.get("/fail")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "inside" not in answer.text
    assert "the inside" in caplog.text


@pytest.mark.parametrize("status", [402, 409, 418, 503])
async def test_a_librarys_error_keeps_its_status(
    tiny_model: Callable[..., Path], models_dir: Path, status: int
) -> None:
    """Any HTTPException is a problem with its own status, detail and headers, and no defect of the service."""
    tiny_model()
    app = create_app(Settings(models_dir=models_dir))

    async def fail() -> None:
        raise HTTPException(status, "as it says", {"retry-after": "7"})

    app.get("/fail")(fail)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        answer = await client.get("/fail")
        metrics = (await client.get("/metrics")).text
    assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (status, status, "other_error")
    assert answer.json()["detail"] == "as it says"
    assert (answer.headers["content-type"], answer.headers["retry-after"]) == ("application/problem+json", "7")
    assert f'cogan_http_requests_total{{code="{status}",method="GET",route="/fail"}} 1.0' in metrics


@pytest.mark.parametrize("path", ["/models", "/nothing", "/generate?seed=1&format=png", "/livez"])
async def test_every_response_has_security_headers(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], path: str
) -> None:
    """Browsers guess no types and frame nothing; and nothing says what the service is made of."""
    tiny_model()
    answer = await connect().get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert not any(name in str(answer.headers).lower() for name in ("uvicorn", "fastapi", "starlette"))


async def ask_and_leave(app: FastAPI, leave: asyncio.Event) -> list[dict[str, Any]]:
    """Ask for an image by bare ASGI, and disconnect at an event; return what was sent."""
    sent: list[dict[str, Any]] = []
    unread = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if unread:
            return unread.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/generate",
        "query_string": b"seed=1",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
    }
    await app(scope, receive, send)
    return sent


async def test_a_client_that_leaves_is_dropped(
    tiny_model: Callable[..., Path], models_dir: Path, held: Callable[[], threading.Event]
) -> None:
    """What nobody waits for is not computed: of ten requests whose clients leave, only those in a run are."""
    tiny_model()
    app = create_app(Settings(models_dir=models_dir, threads=1, max_batch=1))
    gate, leave = held(), asyncio.Event()
    asking = [asyncio.create_task(ask_and_leave(app, leave)) for _ in range(10)]
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
        asyncio.timeout(START),
    ):
        while 'cogan_queue_depth{model="tiny"} 9.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
        leave.set()
        assert await asyncio.gather(*asking) == [[]] * 10
        gate.set()
        while app.state.registry.busy:
            await asyncio.sleep(0.01)
        text = (await client.get("/metrics")).text
    assert 'cogan_queue_depth{model="tiny"} 0.0' in text
    assert 'cogan_rejected_total{reason="cancelled"} 10.0' in text
    assert 'cogan_http_requests_total{code="499",method="GET",route="/generate"} 10.0' in text
    assert "cogan_requests_in_flight 1.0" in text
    computed = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("cogan_samples_total")]
    assert sum(computed) <= 1
