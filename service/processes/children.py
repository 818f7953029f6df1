"""The other processes of a service, which the first begins, tells and ends.

One that ends by itself ends the service: what it counted and which models it had been told to serve are
lost with it, so that a new one would not be like the others. Whoever runs the service begins it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import NotReady
from service.processes.channel import Channel
from service.processes.siblings import Siblings

logger = logging.getLogger("cogan.processes")
INHERIT = "--inherit"
LONGEST_START_S = 600.0


@dataclass(frozen=True)
class Inherited:
    """What a process has of the first: the line that they talk over, and the door where clients come in."""

    line: socket.socket
    door: socket.socket

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> Inherited | None:
        """Take over the sockets that the first process named; None where this is the first."""
        parser = ArgumentParser("cogan-serve", description="Serve models, set up by the variables COGAN_*.")
        parser.add_argument(INHERIT, nargs=2, type=int, help=SUPPRESS)
        if (numbers := parser.parse_args(arguments).inherit) is None:
            return None
        return cls(*(socket.socket(fileno=number) for number in numbers))


class Processes:
    """The processes beside this one; belongs to an event loop."""

    def __init__(
        self,
        siblings: Siblings,
        on_start: Callable[[socket.socket], None],
        on_all: Callable[[], Awaitable[Any]],
        on_loss: Callable[[], None],
    ) -> None:
        """`on_start` is given the door of each that joins, `on_all` follows the last.

        `on_loss` is called when one has ended by itself.
        """
        self._siblings, self._on_start, self._on_all, self._on_loss = siblings, on_start, on_all, on_loss
        self._running: dict[asyncio.subprocess.Process, asyncio.Task[None]] = {}
        self._lines: list[Channel] = []
        self._ending = False

    def begin(self, count: int) -> None:
        """Start so many; each has joined as soon as it serves."""
        self._starting = asyncio.create_task(self._start_all(count))
        self._starting.add_done_callback(self._tell_failure)

    def tell(self, number: int) -> None:
        """Send all of them a signal, by which they may end."""
        self._ending = True
        for process in self._running:
            if process.returncode is None:
                process.send_signal(number)

    def dismiss(self) -> None:
        """Let them answer what they have, and end."""
        self._ending = True
        for line in self._lines:
            line.close()

    async def end(self, patience_s: float) -> None:
        """Wait until all have ended, and kill what has not by then."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=patience_s)
        for process in self._running:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*self._running.values())

    async def _start_all(self, count: int) -> None:
        with contextlib.suppress(NotReady):  # one has ended, as `_watch` tells
            async with self._siblings.unchanged():  # so that a new one opens what the others serve
                await asyncio.gather(*(self._start(number) for number in range(2, count + 2)))
            await self._on_all()

    def _tell_failure(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and (error := starting.exception()) is not None:
            logger.error("a process could not be begun; the service ends", exc_info=error)
            self._on_loss()

    async def _start(self, number: int) -> None:
        line, their_line = socket.socketpair()
        door, their_door = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as unless_begun, their_line, their_door:
            unless_begun.enter_context(line)
            unless_begun.enter_context(door)
            inherited = (their_line.fileno(), their_door.fileno())
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "service", INHERIT, *map(str, inherited)],
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C is for the first, which passes it on
            )
            unless_begun.pop_all()
        name = f"process {number}"
        self._running[process] = asyncio.create_task(self._watch(process, name))
        channel = await Channel.over(line, name, self._siblings.answer)
        self._lines.append(channel)
        await channel.ask("hang", patience_s=LONGEST_START_S)  # it answers when it serves
        self._siblings.add(channel)
        self._on_start(door)

    async def _watch(self, process: asyncio.subprocess.Process, name: str) -> None:
        status = await process.wait()
        if not self._ending:
            logger.error("%s (%d) ended with status %d; the service ends", name, process.pid, status)
            self._on_loss()
