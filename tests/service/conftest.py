"""The app around tiny models, asked without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
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
