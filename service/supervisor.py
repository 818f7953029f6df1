"""The supervisor of several server processes: it starts, pings and replaces them, and passes signals on.

It serves nothing. Each process is a whole server at the same port; what they share is a run folder with their metrics
and the models that requests loaded or unloaded, which ends with the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from service.errors import SettingsError, StartError
from service.server import FAILED, PING, READY
from service.settings import Settings

logger = logging.getLogger("cogan.supervisor")
PING_EVERY_S = 1.0
MAX_UNANSWERED = 5  # pings; counted, not timed, as the supervisor may be paused with all others
MAX_UNREADY = 600  # pings of a process that starts: it may have many models to load
STEADY_AFTER_S = 10.0  # a process that ran for less is replaced after a delay, which doubles
MAX_DELAY_S = 30.0
GRACE_S = 10.0  # beside the drain delay and the deadline of requests
RUN_FOLDER = "cogan-serve-"  # of temporary folders


@contextlib.contextmanager
def run_folder() -> Iterator[tuple[Path, int]]:
    """Give a temporary folder, and the descriptor that locks it, also in processes that inherit it.

    Folders that nobody locks were left by services that were killed: they are removed. Raises SettingsError.
    """
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{RUN_FOLDER}"))  # until it is locked
        lock = os.open(hidden, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = hidden.rename(hidden.with_name(hidden.name[1:]))
    except OSError as error:
        raise SettingsError(f"no temporary folder: {error}; set TMPDIR, or COGAN_PROCESSES = 1") from error
    for other in folder.parent.glob(f"{RUN_FOLDER}*"):
        with contextlib.suppress(OSError):
            _remove_unlocked(other)
    try:
        yield folder, lock
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_unlocked(folder: Path) -> None:
    """Remove a run folder of this user; an OSError says that it is locked, or another user's."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_uid == os.geteuid():  # root can lock all
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)


@dataclass
class Child:
    """One server process and the socket it is pinged over."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    delay: float  # before the one that replaces it, if it runs for a short time
    started_at: float = field(default_factory=time.monotonic)
    ready: bool = False
    error: str = ""  # why it cannot start
    closed: bool = False  # its end of the socket
    pinged_at: float = 0.0
    unanswered: int = 0  # pings
    hung: bool = False  # and was killed for it

    def receive(self) -> None:
        """Read what it has sent: that it is ready, answers of its event loop, or why it cannot start."""
        with contextlib.suppress(OSError):  # nothing more
            while message := self.channel.recv(4096):
                self.unanswered = 0
                self.ready = self.ready or message.startswith(READY)
                if not self.ready:
                    self.error += message.decode(errors="replace").removeprefix(FAILED.decode())
            self.closed = True


class Supervisor:
    """Keeps `settings.processes` servers running until a signal."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: list[Child] = []
        self._due = [(0.0, 1.0)] * settings.processes  # when to start each that does not run, and its `delay`
        self._serving = False  # whether a process was ever ready
        self._stop_by: float | None = None
        self._status, self._error = 0, ""
        self._signals: list[int] = []  # received, to be passed on

    def run(self) -> int:
        """Supervise until a signal, and return the exit status. Raises StartError if no process could start."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        with run_folder() as (folder, lock):
            while self._children or self._stop_by is None:
                while self._signals:
                    self._pass_on(self._signals.pop(0))
                if self._stop_by is None:
                    self._start_due(folder, lock)
                self._ping()
                self._receive()
                self._reap(folder)
        if self._error:
            raise StartError(self._error)
        return self._status

    def _start_due(self, folder: Path, lock: int) -> None:
        now = time.monotonic()
        for due, delay in [one for one in self._due if now >= one[0]]:
            self._due.remove((due, delay))
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            command = [sys.executable, "-m", "service", "--child", str(theirs.fileno()), str(folder)]
            with theirs:  # in a session of its own: Ctrl-C is for the supervisor, which passes it on
                process = subprocess.Popen(command, pass_fds=(theirs.fileno(), lock), start_new_session=True)
            self._children.append(Child(process, ours, delay))

    def _ping(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if now - child.pinged_at >= PING_EVERY_S:
                child.pinged_at = now
                child.unanswered += 1
                with contextlib.suppress(OSError):  # it hangs or has exited
                    child.channel.send(PING)
            if child.unanswered > (MAX_UNANSWERED if child.ready else MAX_UNREADY) and not child.hung:
                logger.error("process %d hangs and is replaced", child.process.pid)
                child.process.kill()
                child.hung = True
            if self._stop_by is not None and now > self._stop_by and child.process.poll() is None:
                logger.error("process %d did not stop in time and is killed", child.process.pid)
                child.process.kill()
                self._status = 1

    def _receive(self) -> None:
        """Wait a moment for what the processes send."""
        by_channel = {child.channel: child for child in self._children if not child.closed}
        for channel in select.select(by_channel, [], [], 0.1)[0]:
            by_channel[channel].receive()
            self._serving |= by_channel[channel].ready

    def _reap(self, folder: Path) -> None:
        """Remove processes that have exited, and plan to replace them."""
        for child in list(self._children):
            if (status := child.process.poll()) is None:
                continue
            child.receive()
            child.channel.close()
            self._children.remove(child)
            mark_process_dead(child.process.pid, str(folder))  # type: ignore[no-untyped-call]
            if self._stop_by is None and (self._serving or child.hung):
                self._plan(child, status)
                continue
            if self._stop_by is None:
                self._error = child.error
                self._pass_on(signal.SIGTERM)
            elif status == -signal.SIGTERM:  # it had no handler yet
                status = 0
            self._status = self._status or (status if status >= 0 else 1)

    def _plan(self, child: Child, status: int) -> None:
        steady = time.monotonic() - child.started_at > STEADY_AFTER_S
        delay, next_delay = (0.0, 1.0) if steady else (child.delay, min(2 * child.delay, MAX_DELAY_S))
        self._due.append((time.monotonic() + delay, next_delay))
        reason = f"could not start: {child.error}" if child.error else f"exited with status {status}"
        logger.error("process %d %s; replaced in %g s", child.process.pid, reason, delay)

    def _pass_on(self, number: int) -> None:
        """Send a signal to all processes; SIGTERM and SIGINT stop the service.

        One that still starts may have no handlers yet: SIGHUP would kill it, and it is about to load all models anyway.
        """
        if number != signal.SIGHUP and self._stop_by is not None:
            number = signal.SIGINT  # skips the delay
        elif number != signal.SIGHUP:
            grace = self._settings.drain_delay_s + self._settings.deadline_s + GRACE_S
            self._stop_by = time.monotonic() + grace
        for child in self._children:
            if child.ready:
                child.process.send_signal(number)
            elif number != signal.SIGHUP:
                child.process.terminate()
