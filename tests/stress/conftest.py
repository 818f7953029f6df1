"""Services under stress are of two processes, as they come on a machine of two processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import Service, services
from tests.stress.gauges import settled

PROCESSES = 2


@contextmanager
def pairs(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Give what starts a service, whose arguments are settings, and waits for all its processes."""
    with services(models_dir) as start:

        def start_all(**settings: object) -> Service:
            service = start(processes=PROCESSES, **settings)
            settled(service.url, {"cogan_processes": PROCESSES})
            return service

        yield start_all


@pytest.fixture
def start(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Return what starts a service; its arguments are settings."""
    with pairs(models_dir) as start_all:
        yield start_all
