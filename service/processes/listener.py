"""Accepts connections for several processes and hands each its turn.

Processes that all accept at one socket would share connections unevenly: of 32 that come at once, the one
that wakes first takes 31. Only a connection is handed over, once; its requests are none of the first's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from itertools import cycle

logger = logging.getLogger("cogan.listener")
RETRY_AFTER_S = 1.0  # where the process has no room for another connection
Take = Callable[[socket.socket], None]


def take_over(door: socket.socket) -> list[socket.socket]:
    """Return the connections that wait at a door."""
    clients: list[socket.socket] = []
    with contextlib.suppress(BlockingIOError):
        while (found := socket.recv_fds(door, 1, 1))[0]:
            clients += (socket.socket(fileno=number) for number in found[1])
            if not found[1]:
                logger.error("a connection is lost: this process may open no more files (ulimit -n)")
    return clients


class Listener:
    """Accepts what comes, for this process and others; belongs to an event loop."""

    def __init__(self, take: Take) -> None:
        """`take` is what this process does with a connection of its own."""
        self._take = take
        self._doors: list[socket.socket | None] = [None]  # this process has none
        self._turns = cycle(self._doors)
        self._accepting: list[asyncio.Task[None]] = []

    def begin(self, bound: Sequence[socket.socket], backlog: int) -> None:
        """Listen at addresses that are taken already."""
        for one in bound:
            one.setblocking(False)
            one.listen(backlog)
            self._accepting.append(asyncio.create_task(self._accept(one)))

    def add(self, door: socket.socket) -> None:
        """Give the process behind a door its turn, too."""
        door.setblocking(False)
        self._doors.append(door)
        self._turns = cycle(self._doors)

    def end(self) -> None:
        """Listen no longer; what was accepted has been handed over."""
        for task in self._accepting:
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    logger.error("no connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(RETRY_AFTER_S)
                continue
            self._hand(client)
            await asyncio.sleep(0)  # for all else that is due

    def _hand(self, client: socket.socket) -> None:
        """Give a connection to whose turn it is; where that one takes none, to the first."""
        if (door := next(self._turns)) is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(door, [b"+"], [client.fileno()])
                client.close()
                return
        self._take(client)
