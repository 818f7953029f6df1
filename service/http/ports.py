"""Ports that are listened at: how uvicorn is set up for each, and the one that has health alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.http.addresses import take_address, url
from service.http.connections import Connection
from service.http.gathering import Gathering
from service.settings import Settings


def port_config(
    app: FastAPI, settings: Settings, port: int, gathering: Gathering, **own: Any
) -> uvicorn.Config:
    """Configure a port: all of them log, listen and limit their clients alike."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=_connection_class(settings, gathering),
        ws="none",
        **own,
    )


def _connection_class(settings: Settings, shared: Gathering) -> type[Connection]:
    """Return the class of connections that gather together, with the limits that are set."""

    class LimitedConnection(Connection):
        head_timeout_s, send_timeout_s = settings.head_timeout_s, settings.send_timeout_s
        gathering = shared

    return LimitedConnection


class HealthServer(uvicorn.Server):
    """The port that has the health routes alone; it lives as long as the server that it tells of."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        assert settings.health_port is not None
        config = port_config(app, settings, settings.health_port, Gathering(), timeout_graceful_shutdown=1)
        super().__init__(config)
        self._bound = take_address(settings.host, settings.health_port, "COGAN_HEALTH_PORT")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the other server."""
        yield

    async def begin(self) -> str:
        """Listen, and return where."""
        self._serving = asyncio.create_task(self.serve(self._bound))
        while not self.started:
            await asyncio.sleep(0.01)
        return url(self._bound[0].getsockname())

    async def end(self) -> None:
        """End listening."""
        self.should_exit = True
        await self._serving
