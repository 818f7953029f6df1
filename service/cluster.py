"""A service of several processes: the first listens and hands connections round, the others take theirs."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from fastapi import FastAPI

from service.http.ports import HealthServer
from service.http.server import Server
from service.processes.channel import Channel
from service.processes.children import Inherited, Processes
from service.processes.listener import Listener, take_over
from service.settings import Settings

GRACE_S = 10.0  # beside the deadline of requests


class ClusterServer(Server):
    """Serves connections that were accepted elsewhere."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(app, settings)
        self._opening: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve; uvicorn listens nowhere."""
        del sockets
        await super().startup([])

    def take(self, client: socket.socket) -> None:
        """Serve a connection."""
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self._protocol, client))
        self._opening.add(opening)  # the loop itself would not keep it alive
        opening.add_done_callback(self._opening.discard)

    def leave(self) -> None:
        """End without a delay: part of the service is gone."""
        self._state.readiness.draining = self.should_exit = True

    def _protocol(self) -> asyncio.Protocol:
        kind = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class FirstServer(ClusterServer):
    """Listens for all, begins the others, and passes on what it is told."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(app, settings)
        self._listener = Listener(self.take)
        self._processes = Processes(
            app.state.siblings, self._listener.add, app.state.changes.agree, self._lose
        )

    async def open(self) -> None:
        """Listen, say where, and begin the others; each serves as soon as its models are loaded."""
        self._listener.begin(self._bound, self.config.backlog)
        await super().open()
        self._processes.begin(self._settings.processes - 1)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let the others drain, too; they end when listening has ended."""
        super().handle_exit(sig, frame)
        self._processes.tell(signal.SIGINT if self.force_exit else signal.SIGTERM)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End listening, then the others and what this process answers."""
        self._listener.end()
        self._processes.dismiss()
        await super().shutdown(sockets)

    async def close(self) -> None:
        """Wait for the others."""
        await self._processes.end(self._settings.deadline_s + GRACE_S)
        await super().close()

    def _lose(self) -> None:
        self.exit_status = 1
        self.leave()


class OtherServer(ClusterServer):
    """Takes the connections that the first hands over, and ends when the first does."""

    def __init__(self, app: FastAPI, settings: Settings, inherited: Inherited) -> None:
        super().__init__(app, settings)
        self._line, self._door = inherited.line, inherited.door

    def bind(self) -> list[socket.socket]:
        """Return nothing: the first process listens."""
        return []

    def make_health(self, app: FastAPI) -> HealthServer | None:  # noqa: ARG002  # as the first process has it
        """Return nothing: the first process tells of all."""
        return None

    async def open(self) -> None:
        """Join the first process."""
        siblings = self._state.siblings
        first = await Channel.over(self._line, "the first process", siblings.answer)
        first.ended.add_done_callback(lambda _: self.leave())
        siblings.follow(first)
        loop = asyncio.get_running_loop()
        self._door.setblocking(False)
        loop.add_reader(self._door, self._take_all)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take what was handed over last, and answer all."""
        asyncio.get_running_loop().remove_reader(self._door)
        self._take_all()
        await asyncio.gather(*self._opening)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Drain until the first process ends the line, or end at once where it was asked twice."""
        self._state.readiness.draining = True
        if sig == signal.SIGINT:
            self.force_exit = self.should_exit = True

    def _take_all(self) -> None:
        for client in take_over(self._door):
            self.take(client)
