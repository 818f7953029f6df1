"""Listens on a port, and knows when to stop: how uvicorn is set up, and what signals do."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.http.addresses import take_address, url
from service.http.ports import HealthServer, port_config
from service.settings import Settings

logger = logging.getLogger("cogan.server")


def _spare_collector() -> None:
    """Keep the garbage collector from what stays, which would halt every answer for some 40 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 20, 20)  # fewer looks at what is young, each still short


class Server(uvicorn.Server):
    """Drains on SIGTERM: not ready at once, listening for the delay, then every request answered.

    On SIGHUP it looks at the models folder again, while it serves.
    """

    exit_status = 0

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        """Take the address. Raises SettingsError where it cannot be had."""
        super().__init__(
            port_config(
                app,
                settings,
                settings.port,
                app.state.gathering,
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_keep_alive=75,  # longer than proxies keep idle connections
                timeout_graceful_shutdown=int(settings.deadline_s) + 5,
            )
        )
        self._state, self._settings = app.state, settings
        self._bound = self.bind()
        self._close_at: float | None = None
        self._health = self.make_health(app)
        self._reloading: set[asyncio.Task[None]] = set()

    def bind(self) -> list[socket.socket]:
        """Return sockets for its addresses."""
        return take_address(self._settings.host, self._settings.port, "COGAN_PORT")

    def make_health(self, app: FastAPI) -> HealthServer | None:
        """Return the server of the health port, where it is another."""
        return HealthServer(app.state.health, self._settings) if app.state.health is not app else None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve at its addresses until it is told to end."""
        await super().serve(sockets or self._bound)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._bound[0].getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        _spare_collector()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await self.open()

    async def open(self) -> None:
        """Say where requests are taken."""
        models = [model.name for model in self._state.registry.models]
        where = url(self._bound[0].getsockname())
        extra: dict[str, object] = {"url": where, "models": models}
        if self._health is not None:
            extra["health_url"] = await self._health.begin()
        logger.info("serving %s on %s", ", ".join(models) or "no model", where, extra=extra)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End listening, and answer all that was accepted."""
        logger.info("listening ends; accepted requests are answered")
        await super().shutdown(sockets)
        await self.close()
        logger.info("ended")

    async def close(self) -> None:
        """End what tells of the service to the last."""
        if self._health is not None:
            await self._health.end()

    def _reload(self) -> None:
        task = asyncio.create_task(self._state.changes.reload())
        self._reloading.add(task)  # the loop itself would not keep it alive
        task.add_done_callback(self._reloading.discard)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Begin to drain on SIGTERM; a second signal, or Ctrl-C, skips the delay."""
        self._state.readiness.draining = True
        if sig == signal.SIGTERM and self._close_at is None:
            self._close_at = time.monotonic() + self._settings.drain_delay_s
            return
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Say whether to stop listening; asked ten times a second."""
        drained = self._close_at is not None and time.monotonic() >= self._close_at
        return await super().on_tick(counter) or drained
