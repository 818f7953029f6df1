"""The real service around a test: a process, or a server in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from service.app import create_app
from service.http.server import Server
from service.settings import Settings

START = 30.0  # seconds, for a busy machine
ALONE = {"COGAN_PORT": "0", "COGAN_PROCESSES": "1"}


class Service:
    """A running service, its address, and its log lines so far."""

    def __init__(self, models_dir: Path, **settings: object) -> None:
        variables = {f"COGAN_{name.upper()}": str(value) for name, value in settings.items()}
        environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir)} | ALONE | variables
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url: str = self.wait_for(lambda line: "url" in line)["url"]
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

    def stop(self) -> None:
        """Kill whatever is left."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


@contextmanager
def services(models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Give what starts a service, whose arguments are settings; stop them all in the end."""
    started: list[Service] = []

    def start(**settings: object) -> Service:
        started.append(Service(models_dir, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for service in started:
            service.stop()


@asynccontextmanager
async def listening(models_dir: Path, **settings: Any) -> AsyncIterator[int]:
    """Give the port of a service that listens in this loop, and end it."""
    chosen = Settings(models_dir=models_dir, **({"port": 0, "threads": 1, "processes": 1} | settings))
    server = Server(create_app(chosen), chosen)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield server.port
    finally:
        server.should_exit = True
        await serving
