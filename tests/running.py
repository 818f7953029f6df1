"""The real process, started and stopped around a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START = 30.0  # seconds, for a busy machine


class Service:
    """A running service, its address, and its log lines so far."""

    def __init__(self, models_dir: Path, **settings: object) -> None:
        variables = {f"COGAN_{name.upper()}": str(value) for name, value in settings.items()}
        environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": "0"} | variables
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = self.wait_for(lambda line: "url" in line)["url"]

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(json.loads(line) for line in stream)

    def wait_for(self, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first log line of a kind."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if matching := [line for line in list(self.lines) if found(line)]:
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
