"""The Python client against the real service: what it returns, what it raises, and what it does about faults."""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.client import MAX_CACHED, AsyncClient, Client, Core, PairOptions
from service.errors import (
    DeadlineExceeded,
    DigestMismatch,
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
from service.http.problems import problem_response
from service.server import Server
from service.settings import Settings
from tests.conftest import write_model
from tests.running import START, Service, services, wait_until

Start = Callable[..., Service]
Open = Callable[..., Client]
KEY = "secret-secret-secret"


class Blocking:
    """An AsyncClient whose methods block and return lists, so that one test is of both clients."""

    def __init__(self, url: str, **access: Any) -> None:
        self._client, self._runner = AsyncClient(url, **access), asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            returned = getattr(self._client, name)(*args, **options)
            return [one async for one in returned] if hasattr(returned, "__aiter__") else await returned

        return lambda *args, **options: self._runner.run(call(*args, **options))

    def close(self) -> None:
        """Close the client and its loop."""
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Blocking], ids=["Client", "AsyncClient"])
def connect_to(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Return what opens a client of either kind."""
    with ExitStack() as stack:
        yield lambda url, **access: cast("Client", stack.enter_context(closing(request.param(url, **access))))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service with two generators, of which `tiny` is the default."""
    folder = tmp_path_factory.mktemp("served")
    write_model(folder)
    write_model(folder, name="all", domains=("digit", "edge", "negative"))
    write_model(folder, name="reader", kind="classifier", goes_with=("tiny",))
    with services(folder) as start:
        yield start(default_model="tiny")


@pytest.fixture
def client(served: Service, connect_to: Open) -> Client:
    """Return a client of that service."""
    return connect_to(served.url)


def arrays(served: Service, path: str) -> dict[str, Any]:
    """Return what the service sends as npz."""
    return dict(np.load(io.BytesIO(httpx.get(f"{served.url}{path}&format=npz").raise_for_status().content)))


def statuses(service: Service) -> list[int]:
    """Return the statuses of all requests for images so far, also of those that were refused before routing."""
    return [line["status"] for line in list(service.lines) if line.get("route") in ("/generate", "unmatched")]


# Results


def test_generate_returns_the_pixels_of_the_service(served: Service, client: Client) -> None:
    """Arrays of all pairs, each pair with its seed and index, and pictures of single images."""
    pairs = client.generate(seeds=[7, 8], count=2)
    expected = arrays(served, "/generate?seeds=7&seeds=8&count=2")
    for domain in ("digit", "edge"):
        assert pairs[domain].dtype == np.uint8
        assert np.array_equal(pairs[domain], expected[domain])
        assert np.array_equal(np.asarray(pairs.image(domain, 3)), expected[domain][3].squeeze())
    assert [(pair.seed, pair.index) for pair in pairs] == [(7, 0), (7, 1), (8, 0), (8, 1)]
    assert np.array_equal(pairs[1]["edge"], expected["edge"][1])
    assert (len(pairs), pairs.model, pairs.domains) == (4, "tiny", ("digit", "edge"))


def test_options_reach_the_service(served: Service, client: Client) -> None:
    """Model, domains in their order, and truncation."""
    pairs = client.generate(seed=7, model="all", domains=("negative", "edge"), truncation=0.5)
    expected = arrays(served, "/generate?seed=7&model=all&truncation=0.5")
    assert pairs.domains == ("negative", "edge")
    assert np.array_equal(pairs["negative"], expected["negative"])
    assert not np.array_equal(pairs["edge"], arrays(served, "/generate?seed=7&model=all")["edge"])


def test_latents_are_sent_exactly(served: Service, client: Client) -> None:
    """Latents that the service has used give the same images again."""
    expected = arrays(served, "/generate?seed=3&count=5")
    pairs = client.generate(latents=expected["latent"])
    assert np.array_equal(pairs["edge"], expected["edge"])
    assert pairs[4].seed is None


def test_without_a_seed_it_is_random(client: Client) -> None:
    """Two requests differ, and each is repeated by its seed."""
    first, second = client.generate(), client.generate()
    assert first[0].seed != second[0].seed
    assert np.array_equal(client.generate(seed=first[0].seed)["digit"], first["digit"])


def test_interpolate_walks_between_seeds(served: Service, client: Client) -> None:
    """Two seeds give the frames of GET, with their positions."""
    walk = client.interpolate([1, 2], steps=5, method="lerp")
    assert np.array_equal(walk["edge"], arrays(served, "/interpolate?from=1&to=2&steps=5&method=lerp")["edge"])
    assert [frame.t for frame in walk] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_key_frames_are_seeds_pairs_and_latents(served: Service, client: Client) -> None:
    """A walk goes through each of them, and back to the first in a loop."""
    kept, pair = arrays(served, "/generate?seed=5&count=3"), client.generate(seed=5, count=3)[2]
    walk = client.interpolate([5, pair, kept["latent"][1]], steps=3, loop=True)
    assert len(walk) == 6
    assert np.array_equal(walk["digit"][::2], kept["digit"][[0, 2, 1]])


def test_models_are_cards_by_name(served: Service, client: Client) -> None:
    """The default one comes first, whatever the order of names."""
    models = client.models()
    assert list(models) == ["tiny", "all", "reader"]
    assert models["all"] == httpx.get(f"{served.url}/models/all").json()


def test_fetch_returns_files_as_they_are(served: Service, client: Client) -> None:
    """Any GET of the service, such as an animation."""
    query: dict[str, str | int] = {"from": 1, "to": 2, "format": "gif"}
    assert client.fetch("/interpolate", query) == httpx.get(f"{served.url}/interpolate", params=query).content


def test_a_service_may_be_below_a_path() -> None:
    """The client keeps the prefix of its address."""
    for url in ("http://service/pairs", "http://service/pairs/"):
        request, _ = next(Core(url).exchange(Core(url).generate(seed=7)))
        assert str(request.url) == "http://service/pairs/generate?seed=7"


def test_its_methods_are_documented() -> None:
    """`help` shows the fields of the request, not the wrapper's."""
    for kind in (Client, AsyncClient):
        method = kind("http://service").generate
        assert list(inspect.signature(method).parameters)[:2] == ["seed", "seeds"]
        assert "latents [B, Z]" in (inspect.getdoc(method) or "")


def test_threads_share_a_client(served: Service) -> None:
    """Each gets the response to its own request."""
    expected = arrays(served, "/generate?" + "&".join(f"seeds={i}" for i in range(20)))["edge"]
    with Client(served.url) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: client.generate(seed=i % 20)["edge"][0], range(200)))
    assert all(np.array_equal(one, expected[i % 20]) for i, one in enumerate(found))


# Labels, filters and shards


def test_pairs_are_labelled_and_filtered(client: Client) -> None:
    """Those that pass have the class and the confidence, and can be generated again by seed and index."""
    pairs = client.generate(seed=3, count=4, labels=True, agree=True, class_name="two", min_confidence=0.6)
    assert len(pairs) == 4
    for pair in pairs:
        assert pair.labels is not None
        assert pair.agree
        assert pair.labels["digit"]["class"] == "two"
        assert pair.labels["digit"]["confidence"] >= 0.6
        again = client.generate(seed=3, index=pair.index)
        assert np.array_equal(again["edge"][0], pair["edge"])
    assert max(pair.index or 0 for pair in pairs) > 3, "some did not pass"


def test_frames_are_labelled(client: Client) -> None:
    """Each frame of a walk has its labels."""
    walk = client.interpolate([1, 2], steps=3, labels=True)
    assert [list(frame.labels or ()) for frame in walk] == [["digit"]] * 3


def test_shards_are_pairs_of_their_seeds(served: Service, client: Client) -> None:
    """Several shards follow one another, with the pixels of the service, each from its own seed on."""
    pairs = list(client.shards([2, 0], size=3))
    assert [pair.seed for pair in pairs] == [6, 7, 8, 0, 1, 2]
    expected = arrays(served, "/generate?seed=7")
    assert np.array_equal(pairs[1]["edge"], expected["edge"][0])
    assert np.array_equal(pairs[1]["digit"], expected["digit"][0])
    assert len(list(client.shards(5, size=40))) == 40


def test_shards_take_options_and_filters(client: Client) -> None:
    """Seeds without a pair that passes are left out, and the list of them is no pair."""
    options: PairOptions = {"domains": ["digit"], "labels": True, "class_name": "two", "min_confidence": 0.99}
    pairs = list(client.shards(0, size=20, **options))
    seeds = [pair.seed or 0 for pair in pairs]
    assert seeds == sorted({*seeds} & {*range(20)})
    assert 0 < len(seeds) < 20
    assert all(pair.labels and pair.labels["digit"]["class"] == "two" for pair in pairs)
    assert all(set(pair.images) == {"digit"} for pair in pairs)


def test_shards_pin_the_model(client: Client) -> None:
    """Of another file of the model nothing is taken."""
    digest = client.models()["tiny"]["digest"]
    assert len(list(client.shards(1, size=2, digest=digest))) == 2
    with pytest.raises(DigestMismatch):
        list(client.shards(1, size=2, digest="sha256:" + "0" * 64))


def test_shards_are_downloaded_one_at_a_time(served: Service) -> None:
    """An endless sequence of numbers is an endless data set."""
    with Client(served.url) as client:
        seeds = [pair.seed for pair in itertools.islice(client.shards(itertools.count(7), size=2), 5)]
    assert seeds == [14, 15, 16, 17, 18]


# The cache


def test_a_repeated_request_is_revalidated(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """It is answered by 304 with the pixels of before, whatever was done to these; a new model is noticed."""
    tiny_model()
    service = start()
    client = connect_to(service.url)
    first = client.generate(seed=7)
    kept, first[0]["edge"][:] = first["edge"], 0
    assert np.array_equal(client.generate(seed=7)["edge"], kept)
    tiny_model(version="2", domains=("digit", "edge", "more"))
    wait_until(lambda: client.models()["tiny"]["version"] == "2")
    assert client.generate(seed=7).domains == ("digit", "edge", "more")
    wait_until(lambda: len(statuses(service)) == 3)
    assert statuses(service) == [200, 304, 200]


def test_the_cache_is_bounded(served: Service, client: Client) -> None:
    """The oldest response is dropped, the others stay."""
    before = len(statuses(served))
    for seed in (*range(MAX_CACHED + 1), 0, MAX_CACHED):
        client.generate(seed=seed)
    wait_until(lambda: len(statuses(served)) == before + MAX_CACHED + 3)
    assert statuses(served)[before:] == [200] * (MAX_CACHED + 2) + [304]


# Errors


@pytest.mark.parametrize(
    ("call", "error", "field"),
    [
        (
            lambda client: client.generate(model="nothing"),
            UnknownModel,
            FieldError("/model", "nothing", ["all", "reader", "tiny"], "query"),
        ),
        (
            lambda client: client.generate(seed=1, count=0),
            InvalidRequest,
            FieldError("/count", "0", "Input should be greater than or equal to 1", "query"),
        ),
        (
            lambda client: client.generate(count=65),
            TooLarge,
            FieldError("/count", "65", "at most 64", "query"),
        ),
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
def test_every_error_of_the_service_arrives(kind: type[RequestError]) -> None:
    """The client raises what the service raised, with all of its fields, for each class of errors."""
    sent = kind("what is wrong", [FieldError("/count", 0, ["1", "2"], "query")], {"WWW-Authenticate": "Bearer"})
    answer = problem_response(sent)
    core = Core("http://service")
    steps = core.exchange(core.models())
    next(steps)
    with pytest.raises(kind) as caught:
        steps.send(httpx.Response(answer.status_code, headers=answer.headers, content=bytes(answer.body)))
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (sent.status, sent.code)
    assert (caught.value.detail, caught.value.errors) == (sent.detail, sent.errors)
    assert caught.value.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (httpx.Response(502, text="<h1>Bad gateway</h1>"), "<h1>Bad gateway</h1>"),
        (httpx.Response(502), "Bad Gateway"),
        (httpx.Response(409, json={"code": "of_tomorrow", "detail": "no", "errors": []}), '{"code":"of_tomorrow"'),
    ],
)
def test_other_errors_keep_their_status(response: httpx.Response, detail: str) -> None:
    """What a proxy says, or a service with newer codes."""
    core = Core("http://service")
    steps = core.exchange(core.models())
    next(steps)
    with pytest.raises(OtherError, match=f"^{re.escape(detail)}") as caught:
        steps.send(response)
    assert caught.value.status == response.status_code


def test_a_key_is_sent(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """Without one, or with a wrong one, the service refuses."""
    tiny_model()
    service = start(api_keys=KEY)
    assert connect_to(service.url, key=KEY).generate(seed=7).model == "tiny"
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
    service = start(rate_limit=1, rate_burst=1)
    client, before = connect_to(service.url), time.monotonic()
    assert [client.generate(seed=i)[0].seed for i in range(2)] == [0, 1]
    assert time.monotonic() - before >= 1
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


def test_a_service_without_models_is_waited_for(start: Start, tiny_model: Callable[..., Path]) -> None:
    """The client would wait as long as the 503 says, and then sends the same request again."""
    core = Core(start().url)
    steps = core.exchange(core.generate(seed=7))
    request, wait_s = next(steps)
    assert wait_s == 0
    with httpx.Client() as http:
        again, wait_s = steps.send(http.send(request))
        assert (again, wait_s) == (request, 5)
        tiny_model()
        wait_until(lambda: httpx.get(f"{request.url.copy_with(path='/readyz', query=None)}").status_code == 200)
        with pytest.raises(StopIteration) as done:
            steps.send(http.send(again))
    assert done.value.value[0].seed == 7


@pytest.mark.anyio
async def test_a_service_that_stops_is_named(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A request that a shutdown cuts off raises NotReady, if the client is not to wait for the next process."""
    tiny_model(turns=300_000)
    settings = Settings(models_dir=models_dir, port=0, threads=1, processes=1)
    server = Server(create_app(settings), settings)
    server.config.timeout_graceful_shutdown = 0
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with AsyncClient(f"http://127.0.0.1:{server.port}", timeout=START, max_wait=0) as client:
        asking = asyncio.create_task(client.generate(seed=7, count=64))
        await asyncio.sleep(0.2)
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
