"""The app around tiny models, asked without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import helper

from service.app import create_app
from service.metadata import METADATA_KEY
from service.settings import Settings
from tests.conftest import Shape, build_graph, describe_model
from tests.running import Service, services


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
