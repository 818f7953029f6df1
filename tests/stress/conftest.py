"""A real process to load, whose gauges are read as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import Service, services


@pytest.fixture
def start(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Return what starts a service; its arguments are settings."""
    with services(models_dir) as start:
        yield start
