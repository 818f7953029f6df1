"""The real service around a test: a process, several below a supervisor, or a server in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from service.app import create_app
from service.server import Server
from service.settings import Settings

START = 60.0  # seconds, for a busy machine
NOTHING_ELSE: Mapping[str, str] = {}
ALONE = {"COGAN_PORT": "0", "COGAN_PROCESSES": "1"}


class Service:
    """A running service, its address, and its log lines so far; of several processes all are ready."""

    def __init__(self, models_dir: Path, environment: Mapping[str, str], **settings: object) -> None:
        """Start it with settings and further variables of the environment."""
        variables = {f"COGAN_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=os.environ | {"COGAN_MODELS_DIR": str(models_dir)} | ALONE | variables | dict(environment),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        times = int(variables.get("COGAN_PROCESSES", 1))
        try:
            self.url: str = self.wait_for(lambda line: "url" in line, times)["url"]
        except BaseException:
            self.stop()
            raise
        self.port = int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(json.loads(line) for line in stream)

    def wait_for(self, found: Callable[[dict[str, Any]], bool], times: int = 1) -> dict[str, Any]:
        """Return the first log line of a kind, once there are so many."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            matching = [line for line in list(self.lines) if found(line)]
            if len(matching) >= times:
                return matching[0]
            time.sleep(0.02)
        raise TimeoutError(f"not in {self.lines}")

    @property
    def children(self) -> list[int]:
        """The processes below the supervisor."""
        pid = self.process.pid
        try:
            return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def owner(self, client: socket.socket) -> int:
        """Return the child that has accepted a connection, by what Linux says of its sockets."""
        wanted, end = client.getsockname()[1], time.monotonic() + START
        while time.monotonic() < end:
            inodes = {inode for inode, remote in tcp_at(self.port).items() if remote == wanted}
            if found := [pid for pid in self.children if inodes & sockets_of(pid)]:
                return found[0]
            time.sleep(0.01)
        raise TimeoutError(f"nobody has accepted the connection from port {wanted}")

    def stop(self) -> None:
        """Kill whatever is left."""
        children = self.children
        self.process.kill()
        self.process.wait()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join()


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + START
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Return whether a process and all its threads are no more."""
    try:
        (thread,) = Path(f"/proc/{pid}/task").iterdir()
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ValueError:  # several threads
        return False
    except OSError:
        return True


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Give a process, and kill it if it is still there in the end; those below a supervisor end with it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process' sockets."""
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            if (link := str(file.readlink())).startswith("socket:["):
                found.add(link[8:-1])
    return found


def tcp_at(port: int) -> dict[str, int]:
    """Return the inodes of the sockets that listen at a local port or are connected to it, with the client's port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9]: int(line[2][-4:], 16) for line in lines if int(line[1][-4:], 16) == port}


@contextmanager
def services(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Give what starts a service, whose arguments are settings and other variables; stop them all in the end."""
    started: list[Service] = []

    def start(environment: Mapping[str, str] = NOTHING_ELSE, **settings: object) -> Service:
        started.append(Service(models_dir, environment, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for service in started:
            service.stop()


@asynccontextmanager
async def serving(models_dir: Path, **settings: Any) -> AsyncIterator[Server]:
    """Give a server that listens in this loop, and stop it."""
    chosen = Settings(models_dir=models_dir, **({"port": 0, "threads": 1, "processes": 1} | settings))
    server = Server(create_app(chosen), chosen)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield server
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def listening(models_dir: Path, **settings: Any) -> AsyncIterator[int]:
    """Give the port of a server that listens in this loop, and stop it."""
    async with serving(models_dir, **settings) as server:
        yield server.port
