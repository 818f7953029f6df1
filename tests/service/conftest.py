"""The app around tiny models, asked without a socket."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import onnx
import pytest
from onnx import helper

from service.app import create_app
from service.client import AsyncClient, Client
from service.engine.onnx_model import Arrays, OnnxModel
from service.metadata import METADATA_KEY, Direction
from service.settings import Settings
from tests.conftest import LATENT_DIM, Shape, build_graph, describe_model, write_model
from tests.running import START, Service, services

SPREAD = 0.5
VECTORS = [[float(z == 0) for z in range(LATENT_DIM)], [1 / math.sqrt(LATENT_DIM)] * LATENT_DIM]
DIRECTIONS = [
    Direction(vector=tuple(VECTORS[0]), spread=SPREAD),
    Direction(name="thickness", vector=tuple(VECTORS[1]), spread=SPREAD),
]


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio alone, as the service does."""
    return "asyncio"


@pytest.fixture
def connect(models_dir: Path) -> Callable[..., httpx.AsyncClient]:
    """Return what opens a client of a new app; its arguments are settings."""

    def connect(**settings: Any) -> httpx.AsyncClient:
        app = create_app(Settings(models_dir=models_dir, **({"threads": 2, "processes": 1} | settings)))
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    return connect


@pytest.fixture
def client(tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    """Return a client of an app with one model of two domains."""
    tiny_model(("digit", "edge"))
    return connect()


@pytest.fixture
def start(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Return what starts a service; its arguments are settings."""
    with services(models_dir) as start:
        yield start


@pytest.fixture
def sized_model(models_dir: Path) -> Callable[..., Path]:
    """Return what writes a model whose domains have the given shapes, (height, width, channels), by name."""

    def make(shapes: dict[str, Shape], name: str = "tiny", **changes: Any) -> Path:
        """Write models/<name>/1/model.onnx; `changes` replace fields of its metadata."""
        metadata = describe_model(name, "1", shapes, **changes)
        model = build_graph(metadata)
        helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
        path = models_dir / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], threading.Event]]:
    """Return what lets later runs of every model wait until an event is set, which the end of the test does, too.

    Call it when the models are loaded, as their warm-up is a run, and before the first request, as another may be
    computed in the event loop.
    """
    gates = list[threading.Event]()

    def hold() -> threading.Event:
        gate, run = threading.Event(), OnnxModel.run

        def wait_and_run(model: OnnxModel, inputs: Arrays) -> Arrays:
            assert gate.wait(START)
            return run(model, inputs)

        monkeypatch.setattr(OnnxModel, "run", wait_and_run)
        gates.append(gate)
        return gate

    yield hold
    for gate in gates:
        gate.set()


def add_junk(models_dir: Path, version: str) -> None:
    """Add a version of `tiny` that cannot be loaded; it appears whole, as a service may look at any time."""
    hidden = models_dir / "tiny" / f".{version}"
    hidden.mkdir()
    (hidden / "model.onnx").write_bytes(b"junk")
    hidden.rename(models_dir / "tiny" / version)


def statuses(service: Service) -> list[int]:
    """Return the statuses of all requests for images so far, also of those that were refused before routing."""
    return [line["status"] for line in list(service.lines) if line.get("route") in ("/generate", "unmatched")]


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
def connect_to(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Return what opens a client of either kind."""
    with ExitStack() as stack:
        yield lambda url, **access: cast("Client", stack.enter_context(closing(request.param(url, **access))))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[httpx.Request]]:
    """Return what gives clients of either kind responses instead of a service, and returns their requests."""

    def answer(*responses: httpx.Response) -> list[httpx.Request]:
        requests, left = list[httpx.Request](), iter(responses)

        def handle(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            response = next(left)  # copied, as parameters of a test are shared
            return httpx.Response(response.status_code, headers=response.headers, content=response.content)

        transport = httpx.MockTransport(handle)
        monkeypatch.setattr(Client, "_open", partial(httpx.Client, transport=transport))
        monkeypatch.setattr(AsyncClient, "_open", partial(httpx.AsyncClient, transport=transport))
        return requests

    return answer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service with two generators, of which `tiny` is the default."""
    folder = tmp_path_factory.mktemp("served")
    write_model(folder)
    write_model(folder, name="all", domains=("digit", "edge", "negative"))
    write_model(folder, name="reader", kind="classifier", goes_with=("tiny",))
    with services(folder) as start:
        yield start(default_model="tiny")
