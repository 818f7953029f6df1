"""What the Python client does about errors of the real service, waits and cut connections."""

from __future__ import annotations

import asyncio
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.client import KEY as CLIENT_KEY
from service.client import AsyncClient, Client
from service.errors import (
    DeadlineExceeded,
    FieldError,
    InvalidRequest,
    NotReady,
    OtherError,
    RateLimited,
    RequestError,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnknownPath,
)
from service.http.access import VALID_KEY
from service.http.problems import problem_response
from service.server import Server
from service.settings import Settings
from tests.running import START, Service, wait_until
from tests.service.conftest import statuses

Start = Callable[..., Service]
Open = Callable[..., Client]
KEY = "secret-secret-secret"
PIXELS = np.zeros((28, 28), np.uint8)


@pytest.fixture
def client(served: Service, connect_to: Open) -> Client:
    """Return a client of that service."""
    return connect_to(served.url)


def arrays(served: Service, path: str) -> dict[str, Any]:
    """Return what the service sends as npz."""
    return dict(np.load(io.BytesIO(httpx.get(f"{served.url}{path}&format=npz").raise_for_status().content)))


# Errors


ANSWERED = "http://service/models answered"


@pytest.mark.parametrize(
    ("call", "error", "field"),
    [
        (
            lambda client: client.generate(model="nothing"),
            UnknownModel,
            FieldError("/model", "nothing", ["all", "tiny"], "query"),
        ),
        (
            lambda client: client.generate(seed=1, count=0),
            InvalidRequest,
            FieldError("/count", "0", "Input should be greater than or equal to 1", "query"),
        ),
        (lambda client: client.generate(count=65), TooLarge, FieldError("/count", "65", "at most 64", "query")),
        (
            lambda client: client.interpolate([1, 2, 3], steps=1),
            InvalidRequest,
            FieldError("/steps", 1, "Input should be greater than or equal to 2", "body"),
        ),
        (lambda client: client.fetch("nowhere"), UnknownPath, None),
    ],
)
def test_a_problem_is_the_error_of_its_code(
    served: Service,
    client: Client,
    call: Callable[[Client], object],
    error: type[RequestError],
    field: FieldError | None,
) -> None:
    """It has the problem's fields, and the identifier under which the service's log has the request."""
    with pytest.raises(error) as caught:
        call(client)
    assert caught.value.errors == (() if field is None else (field,))
    assert caught.value.detail
    served.wait_for(lambda line: line.get("request_id") == caught.value.request_id)


@pytest.mark.parametrize("kind", [one for one in RequestError.__subclasses__() if one is not OtherError])
def test_every_error_of_the_service_arrives(
    answering: Callable[..., list[httpx.Request]], connect_to: Open, kind: type[RequestError]
) -> None:
    """The client raises what the service raised, with all of its fields, for each class of errors."""
    sent = kind("what is wrong", [FieldError("/count", 0, ["1", "2"], "query")], {"WWW-Authenticate": "Bearer"})
    answer = problem_response(sent)
    answering(httpx.Response(answer.status_code, headers=answer.headers, content=bytes(answer.body)))
    with pytest.raises(kind) as caught:
        connect_to("http://service").models()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (sent.status, sent.code)
    assert (caught.value.detail, caught.value.errors) == (sent.detail, sent.errors)
    assert caught.value.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (httpx.Response(502, text="<h1>Bad gateway</h1>"), f"{ANSWERED} 502 Bad Gateway: <h1>Bad gateway</h1>"),
        (httpx.Response(502), f"{ANSWERED} 502 Bad Gateway"),
        (httpx.Response(404, json={}), f"{ANSWERED} 404 Not Found: {{}}"),
        (
            httpx.Response(307, headers={"Location": "https://service/models"}),
            f"{ANSWERED} 307 Temporary Redirect, a redirect to https://service/models; give the client that address",
        ),
        (httpx.Response(418, json={"code": "other_error", "detail": "a teapot", "errors": []}), "a teapot"),
        (httpx.Response(409, json={"code": "of_tomorrow", "detail": "no", "errors": []}), f"{ANSWERED} 409 Conflict"),
    ],
)
def test_other_errors_keep_their_status(
    answering: Callable[..., list[httpx.Request]], connect_to: Open, response: httpx.Response, detail: str
) -> None:
    """What a proxy says, or a service with newer codes."""
    answering(response)
    with pytest.raises(OtherError, match=f"^{re.escape(detail)}") as caught:
        connect_to("http://service").models()
    assert caught.value.status == response.status_code


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, html="<h1>Please log in</h1>"),
        httpx.Response(200, json={"message": "another service"}),
        httpx.Response(200, json=["another service"]),
        httpx.Response(204),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.generate(seed=7),
        lambda client: client.interpolate([1, 2]),
        lambda client: client.translate(b"an image"),
        lambda client: client.models(),
        lambda client: list(client.shards(0)),
    ],
)
def test_what_is_not_of_the_service_is_an_error(
    answering: Callable[..., list[httpx.Request]],
    connect_to: Open,
    response: httpx.Response,
    call: Callable[[Client], object],
) -> None:
    """A successful response of a proxy or another service is OtherError, which has its address and its beginning."""
    answering(response)
    with pytest.raises(OtherError, match=r"^http://service/.* cannot read; check the address") as caught:
        call(connect_to("http://service"))
    assert caught.value.status == response.status_code
    assert caught.value.detail.endswith(response.text)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda client: client.generate(seeds=[]), r"seeds is \[\]: allowed is at least one"),
        (lambda client: client.generate(seeds=np.array([], int)), "seeds"),
        (lambda client: client.generate(seed=7, domains=()), "domains"),
        (lambda client: client.interpolate([1, 2], domains=[]), "domains"),
        (lambda client: list(client.shards(0, domains=[])), "domains"),
        (lambda client: client.fetch("generate", {"seeds": []}), "seeds"),
        (lambda client: client.generate(latents=[]), "latents"),
        (lambda client: client.interpolate([]), "keyframes"),
        (lambda client: client.translate(PIXELS, to=[]), "to"),
        (lambda client: client.generate(seed=1, format="png"), "format is 'png': allowed is 'json'"),
        (lambda client: client.generate(latents=[[0.0]], format="npz"), "format"),
        (lambda client: client.interpolate([1, 2], format="gif"), "format"),
        (lambda client: client.generate(latents=[[np.nan]]), "a latent holds NaN"),
        (lambda client: client.interpolate([[np.inf], 1]), "a latent holds NaN"),
        (lambda client: client.translate("digit.png"), "image is 'digit.png': allowed are the bytes"),
        (lambda client: client.translate(io.BytesIO(b"")), "image is <_io.BytesIO"),
        (lambda client: client.generate(latents=[0.5] * 4), r"latents have the shape \[4\]: allowed is \[B, Z\]"),
        (lambda client: client.interpolate([[[0.5]], 7]), r"latents have the shape \[1, 1\]: allowed is \[Z\]"),
        (lambda client: client.generate(directions=[2, -1]), r"directions is \[2, -1\]: allowed is a mapping, such as"),
        (lambda client: list(client.shards([1.5])), "number of a shard is 1.5: allowed are whole numbers"),
        (lambda client: list(client.shards(1.5)), "number of a shard is 1.5: allowed are whole numbers"),
        (lambda client: list(client.shards(-1)), "number of a shard is -1: allowed are whole numbers"),
    ],
)
def test_requests_that_would_mean_something_else_are_not_sent(
    answering: Callable[..., list[httpx.Request]], connect_to: Open, call: Callable[[Any], object], error: str
) -> None:
    """An empty list, a format that the client does not read, and values of other types, are errors."""
    requests = answering()
    with pytest.raises(ValueError, match=error):
        call(connect_to("http://service"))
    assert not requests


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"url": "localhost:8000"}, "url is 'localhost:8000': allowed is an address such as http://localhost:8000"),
        ({"url": None}, "url is None: allowed is an address"),
        ({"url": "http://service\n"}, r"url is 'http://service\\n': allowed is an address"),
        ({"url": "http://"}, "url is 'http://': allowed is an address"),
        ({"url": "http://service?model=a"}, "url is 'http://service\\?model=a': .*, without a query"),
        ({"key": b"k" * 20}, "^key is of type bytes: allowed is a str$"),
        ({"max_wait": np.nan}, "max_wait is nan: allowed are seconds"),
        ({"max_wait": "x"}, "max_wait is 'x': allowed are seconds"),
        ({"key": "é" * 20}, "^key has 20 characters: allowed are 16 to 256 of visible ASCII without a comma$"),
        ({"key": ""}, "key has 0 characters"),
        ({"timeout": "5"}, "timeout is '5': allowed are seconds"),
        ({"timeout": np.nan}, "timeout is nan"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_of_wrong_options_is_not_made(kind: type[Client], options: dict[str, Any], error: str) -> None:
    """The error names what is allowed, and never shows the key."""
    with pytest.raises(ValueError, match=error):
        kind(**options)


def test_the_client_takes_the_keys_that_the_service_does() -> None:
    """The client does not import the service's access control, so both state the pattern."""
    assert CLIENT_KEY.pattern == VALID_KEY.pattern


def test_a_key_is_sent(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """Without one, or with a wrong one, the service refuses."""
    tiny_model()
    service = start(api_keys=KEY)
    for right in (KEY, f"{KEY}\n"):  # as a file has it
        assert connect_to(service.url, key=right).generate(seed=7).model == "tiny"
    for key, detail in ((None, "an API key is required"), ("wrong" * 4, "the API key is wrong")):
        with pytest.raises(Unauthorized, match=detail):
            connect_to(service.url, key=key).generate(seed=7)


def test_a_timeout_ends_the_work(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """The service is told how long it may work, and gives up in time."""
    tiny_model(turns=20_000)
    client = connect_to(start().url, timeout=0.001)
    with pytest.raises(DeadlineExceeded):
        client.generate(seed=7)


def test_a_service_that_is_silent_is_given_up(connect_to: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing arrives at all, the wait ends a little later than that of a service would."""
    monkeypatch.setattr("service.client.GRACE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(httpx.ReadTimeout):
        connect_to(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1).generate(seed=7)


# Waiting


def test_retry_after_is_obeyed(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """A request over the rate limit is sent again once there is room, not before."""
    tiny_model()
    service = start(rate_limit=0.25, rate_burst=1)
    client, before = connect_to(service.url), time.monotonic()
    assert [client.generate(seed=i)[0].seed for i in range(2)] == [0, 1]
    assert time.monotonic() - before >= 4
    wait_until(lambda: len(statuses(service)) == 3)
    assert statuses(service) == [200, 429, 200]


def test_a_wait_that_is_too_long_is_an_error(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """With less patience than the service asks for, the error tells how long it would have been."""
    tiny_model()
    client = connect_to(start(rate_limit=0.01, rate_burst=1).url, max_wait=30)
    client.generate(seed=1)
    with pytest.raises(RateLimited) as caught:
        client.generate(seed=2)
    assert 30 < int(caught.value.headers["retry-after"]) <= 100


def test_a_service_without_models_is_waited_for(
    start: Start, tiny_model: Callable[..., Path], connect_to: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits as long as the 503 says, and then sends the same request again."""
    service, sent = start(), list[tuple[httpx.Request, float]]()

    def wait(request: httpx.Request, wait_s: float) -> None:
        sent.append((request, wait_s))
        if wait_s:
            tiny_model()
            wait_until(lambda: httpx.get(f"{service.url}/readyz").status_code == 200)

    for kind in (Client, AsyncClient):
        monkeypatch.setattr(kind, "_reply", without_sleep(kind, wait))
    assert connect_to(service.url).generate(seed=7)[0].seed == 7
    request = sent[0][0]
    assert sent == [(request, 0), (request, 5)]


def without_sleep(kind: Any, wait: Callable[[httpx.Request, float], None]) -> Any:
    """Return a client's method that sends a request, with another way to wait."""
    real = kind._reply

    async def reply(client: Any, request: httpx.Request, wait_s: float) -> httpx.Response:
        wait(request, wait_s)
        response: httpx.Response = await real(client, request, 0)
        return response

    return reply


@pytest.mark.anyio
async def test_a_service_that_stops_is_named(
    tiny_model: Callable[..., Path], models_dir: Path, held: Callable[[], threading.Event]
) -> None:
    """A request that a shutdown cuts off raises NotReady, if the client is not to wait for the next process."""
    tiny_model()
    settings = Settings(models_dir=models_dir, port=0, threads=1, processes=1)
    app = create_app(settings)
    server = Server(app, settings)
    held()
    server.config.timeout_graceful_shutdown = 0
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with AsyncClient(f"http://127.0.0.1:{server.port}", timeout=START, max_wait=0) as client:
        asking = asyncio.create_task(client.generate(seed=7))
        async with asyncio.timeout(START):
            while not app.state.registry.busy:
                await asyncio.sleep(0.01)
        server.should_exit = True
        with pytest.raises(NotReady, match="the service stopped") as caught:
            await asking
    await running
    assert caught.value.headers["retry-after"] == "5"


# Cut connections


@contextmanager
def cutting(port: int, times: int, after: int) -> Iterator[tuple[str, list[bool]]]:
    """Give the URL of a proxy that cuts the first responses after so many bytes, and for each whether it was cut."""
    cut = list[bool]()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(client.recv(65536).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = b"".join(iter(lambda: server.recv(65536), b""))
            cut.append(len(cut) < times)
            client.sendall(answer[:after] if cut[-1] else answer)

    def accept() -> None:
        with suppress(OSError):  # it is shut down
            while True:
                serve(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("after", [0, 20, 700])
def test_a_cut_connection_is_retried(served: Service, connect_to: Open, after: int) -> None:
    """Before the response, in its head or in its body: the request is sent again, and half an answer is none."""
    with cutting(served.port, times=2, after=after) as (url, cut):
        pairs = connect_to(url).generate(seed=7)
        assert np.array_equal(pairs["edge"], arrays(served, "/generate?seed=7")["edge"])
        assert cut == [True, True, False]


def test_a_connection_that_is_cut_again_and_again_is_an_error(served: Service, connect_to: Open) -> None:
    """After four attempts the client raises what httpx says."""
    with cutting(served.port, times=100, after=20) as (url, cut):
        with pytest.raises(httpx.RemoteProtocolError):
            connect_to(url).generate(seed=7)
        assert cut == [True] * 4


def test_a_service_that_is_not_there_is_an_error(connect_to: Open) -> None:
    """Nothing listens at the address."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(httpx.ConnectError):
        connect_to(f"http://127.0.0.1:{port}").models()


def test_a_shard_that_is_cut_is_downloaded_again(served: Service, connect_to: Open) -> None:
    """Each of its pairs comes once."""
    with cutting(served.port, times=1, after=5000) as (url, cut):
        assert [pair.seed for pair in connect_to(url).shards(1, size=10)] == list(range(10, 20))
        assert cut == [True, False]


def test_a_shard_without_its_end_is_an_error(
    served: Service, answering: Callable[..., list[httpx.Request]], connect_to: Open
) -> None:
    """As of a proxy that hides where it was cut, between two files: no part is taken for all of it."""
    whole = httpx.get(f"{served.url}/shards/0.tar?size=10").content
    answering(httpx.Response(200, content=whole[: whole.index(b"4.digit.png")]))
    with pytest.raises(OtherError, match="which the client cannot read; check the address and proxies"):
        list(connect_to("http://service").shards(0, size=10))
