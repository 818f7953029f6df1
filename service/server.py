"""One server process: its sockets, uvicorn set up for them, and how it reacts to signals.

Every process of a service binds the same addresses (SO_REUSEPORT) and the kernel spreads connections over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from service.engine.models import ModelLoader, ModelRegistry
from service.errors import SettingsError, Stuck
from service.http.protocol import Connection
from service.settings import Settings, variable_of
from service.telemetry.metrics import Metrics

logger = logging.getLogger("cogan.server")
KEEP_ALIVE_S = 75  # longer than proxies keep idle connections
PING, PONG = b"?", b"!"  # of a supervisor; of the event loop
HOSTS = "allowed is a name or an address of this machine, without scheme and port, such as 127.0.0.1 or 0.0.0.0"
REMEDIES = {
    errno.EADDRINUSE: "stop what listens there, or set another port",
    errno.EACCES: "set a port from 1024 on, as others are root's",
}
READY, FAILED = b"r", b"e"  # before it, and the reason follows FAILED


def bind_addresses(host: str, port: int, variable: str, exclusive: bool) -> list[socket.socket]:
    """Return a socket for every address of a host, all at one port; 0 is a free one, :: is IPv4 as well.

    With `exclusive` an address that another process has is refused, even if that one shares it. Raises SettingsError,
    which names `variable` beside the host's.
    """
    bare = host.removeprefix("[").removesuffix("]")
    with contextlib.ExitStack() as stack:
        bound = list[socket.socket]()
        try:
            for one in ("::", "0.0.0.0") if bare == "::" else (bare,):
                found = socket.getaddrinfo(one, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
                for family, _, _, _, address in dict.fromkeys(found):
                    number = _port(bound) if bound else port
                    bound.append(stack.enter_context(socket.socket(family, socket.SOCK_STREAM)))
                    _bind(bound[-1], (address[0], number, *address[2:]), exclusive)
        except (OSError, UnicodeError) as error:  # of a name that no host can have
            reason = getattr(error, "strerror", None) or "no name of a host"
            remedy = REMEDIES.get(getattr(error, "errno", 0), HOSTS)
            raise SettingsError(f"COGAN_HOST = {host!r}, {variable} = {port}: {reason}; {remedy}") from error
        stack.pop_all()  # they stay open
    return bound


def _bind(one: socket.socket, address: tuple[object, ...], exclusive: bool) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if not exclusive:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(address)
    if exclusive:
        one.listen(1)  # of two that have bound an address, Linux refuses one only here


def _port(bound: list[socket.socket]) -> int:
    return int(bound[0].getsockname()[1])


def hold_ports(settings: Settings) -> tuple[dict[str, str], list[socket.socket]]:
    """Bind what the processes of one service share, so that no other service takes it.

    Return the ports by variable, 0 resolved, and the sockets. Raises SettingsError if another service has one.
    """
    ports, held = dict[str, str](), list[socket.socket]()
    for field, port in (("port", settings.port), ("health_port", settings.health_port)):
        if port is not None:
            exclusive = bind_addresses(settings.host, port, variable_of(field), exclusive=True)
            number = _port(exclusive)
            for one in exclusive:
                one.close()
            held += bind_addresses(settings.host, number, variable_of(field), exclusive=False)
            ports[f"COGAN_{field.upper()}"] = str(number)
    for one in held:  # with this option, another service could listen before these processes do
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return ports, held


def url(address: tuple[object, ...]) -> str:
    """Return the URL of an address."""
    host, port = str(address[0]), address[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _config(app: FastAPI, settings: Settings, **own: Any) -> uvicorn.Config:
    http = type("Limited", (Connection,), {"settings": settings, "metrics": app.state.metrics})
    own |= {"log_config": None, "access_log": False, "server_header": False, "http": http, "ws": "none"}
    return uvicorn.Config(app, **own)


class HealthServer(uvicorn.Server):
    """The port that has the health routes only; it runs as long as the server of the other port."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        assert settings.health_port is not None
        super().__init__(_config(app, settings, timeout_graceful_shutdown=1))
        self._bound = bind_addresses(settings.host, settings.health_port, "COGAN_HEALTH_PORT", exclusive=False)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the other server."""
        yield

    async def start(self) -> str:
        """Listen, and return the URL."""
        self._serving = asyncio.create_task(self.serve(self._bound))
        while not self.started:
            await asyncio.sleep(0.01)
        return url(self._bound[0].getsockname())

    async def stop(self) -> None:
        """Stop listening."""
        self.should_exit = True
        await self._serving


class Server(uvicorn.Server):
    """Drains on SIGTERM: unready at once, listening for the delay, then every accepted request is answered.

    On SIGHUP it loads the models folder again.
    """

    def __init__(self, app: FastAPI, settings: Settings, supervisor: socket.socket | None = None) -> None:
        """Bind the addresses; `supervisor` is the socket of a supervisor, if there is one. Raises SettingsError."""
        own = {"forwarded_allow_ips": settings.trusted_proxies, "timeout_keep_alive": KEEP_ALIVE_S}
        super().__init__(_config(app, settings, timeout_graceful_shutdown=int(settings.deadline_s) + 5, **own))
        self._drain_delay_s, self._supervisor, self._parent = settings.drain_delay_s, supervisor, os.getppid()
        self._registry: ModelRegistry = app.state.registry
        self._loader: ModelLoader = app.state.loader
        self._metrics: Metrics = app.state.metrics
        self._bound = bind_addresses(settings.host, settings.port, variable_of("port"), exclusive=False)
        self._health = HealthServer(app.state.health, settings) if app.state.health is not app else None
        self._close_at: float | None = None
        self._tasks = set[asyncio.Task[None]]()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return _port(self._bound)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve at its addresses until it is told to stop."""
        await super().serve(sockets or self._bound)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        gc.collect()  # what stays is no longer looked at, which would delay every response by some 40 ms
        gc.freeze()
        gc.set_threshold(2_000, 20, 20)  # young objects are collected less often, each time still quickly
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._start_task(self._loader.refresh(everything=True)))
        self._start_task(self._loader.watch())
        self._start_task(self._metrics.keep_sampled())
        models = [model.name for model in self._registry.models]
        where = url(self._bound[0].getsockname())
        extra: dict[str, object] = {"url": where, "models": models}
        if self._health is not None:
            extra["health_url"] = await self._health.start()
        if self._supervisor is not None:
            self._supervisor.setblocking(False)
            loop.add_reader(self._supervisor, self._answer_ping)
            with contextlib.suppress(OSError):  # it is gone, which the reader notices
                self._supervisor.send(READY)
        logger.info("serving %s on %s", ", ".join(models) or "no model", where, extra=extra)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and answer all that was accepted or waits to be."""
        logger.info("no longer listening; accepted requests are answered")
        await self._close_listeners()
        await super().shutdown(sockets)
        for task in self._tasks:
            task.cancel()
        if self._health is not None:
            await self._health.stop()
        logger.info("stopped")

    async def _close_listeners(self) -> None:
        """Accept every connection in the queue, which closing the listener would reset, and close it."""
        waiting = list[socket.socket]()
        for listening, server in zip(self._bound, self.servers, strict=False):
            with contextlib.suppress(OSError):  # BlockingIOError when the queue is empty
                while True:
                    waiting.append(listening.accept()[0])
            server.close()
        loop, protocol = asyncio.get_running_loop(), cast("type[Connection]", self.config.http_protocol_class)
        make = partial(protocol, self.config, self.server_state, self.lifespan.state)
        for client in waiting:
            with contextlib.suppress(OSError):  # it has left
                await loop.connect_accepted_socket(make, client)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Start to drain on SIGTERM; a second signal, or Ctrl-C, skips the delay.

        Below a supervisor only SIGINT does: systemd sends SIGTERM to all processes, and the supervisor passes it on.
        """
        self._registry.draining = True
        if sig == signal.SIGTERM and (self._close_at is None or self._supervisor is not None):
            self._close_at = self._close_at or time.monotonic() + self._drain_delay_s
            return
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening; called ten times a second.

        An answer that a killed supervisor has not read makes its socket an error, of which libuv tells no reader: so
        the parent's number is looked at, too.
        """
        drained = self._close_at is not None and time.monotonic() >= self._close_at
        orphaned = self._supervisor is not None and os.getppid() != self._parent
        self._registry.draining |= orphaned
        return await super().on_tick(counter) or drained or orphaned

    def _answer_ping(self) -> None:
        """Answer the supervisor, unless a batch hangs; stop if the supervisor is gone."""
        assert self._supervisor is not None
        with contextlib.suppress(BlockingIOError, Stuck):
            if not self._supervisor.recv(64):
                asyncio.get_running_loop().remove_reader(self._supervisor)
                self._registry.draining = self.should_exit = True
                return
            self._registry.check_alive()
            self._supervisor.send(PONG)

    def _start_task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself would not keep it alive
        task.add_done_callback(self._tasks.discard)
