"""The health check of the image tells a ready service from one that is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        """Answer /readyz with the class's status, anything else with 404."""
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(host: str) -> Iterator[int]:
    """Give the port of a server at an address that answers /readyz with `_Answer.status`."""

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    """Return the port of a server on the loopback address."""
    with answering("127.0.0.1") as port:
        yield port


def exit_status(root: Path, port: int, variable: str = "COGAN_PORT", **others: str) -> int:
    """Run the health check as the engine does and return its exit status."""
    command = [sys.executable, str(root / "docker/healthcheck.py")]
    variables = {**os.environ, variable: str(port), **others}
    return subprocess.run(command, env=variables, timeout=30, check=False).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
@pytest.mark.parametrize("variable", ["COGAN_HEALTH_PORT", "COGAN_PORT", "PORT"])
def test_it_follows_readiness(
    root: Path, port: int, status: int, expected: int, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ready service is healthy, one on its way out is not, on the port that the service takes."""
    monkeypatch.setattr(_Answer, "status", status)
    assert exit_status(root, port, variable) == expected


@pytest.mark.parametrize(
    ("listens", "host"),
    [
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "::"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("::1", "[::1]"),
    ],
)
def test_it_asks_where_the_service_listens(root: Path, listens: str, host: str) -> None:
    """At COGAN_HOST, and at the loopback address if that is every address; and nowhere else."""
    try:
        with answering(listens) as port:
            assert exit_status(root, port, COGAN_HOST=host) == 0
            elsewhere = "127.0.0.1" if listens != "127.0.0.1" else "127.0.0.2"
            assert exit_status(root, port, COGAN_HOST=elsewhere) == 1
    except OSError:
        assert listens == "::1"
        pytest.skip("this machine has no IPv6")


def test_the_health_port_comes_first(root: Path, port: int) -> None:
    """The service has its health routes only there, if it is set."""
    assert exit_status(root, port, "COGAN_HEALTH_PORT", COGAN_PORT="1", PORT="2") == 0
    assert exit_status(root, port, "PORT", COGAN_PORT="1") == 1


def test_nobody_listening_is_unhealthy(root: Path) -> None:
    """A refused connection is an answer, not a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert exit_status(root, free.getsockname()[1]) == 1


def test_it_asks_no_proxy(root: Path, port: int) -> None:
    """The engine's proxy settings reach the container, but the check never leaves it."""
    assert exit_status(root, port, http_proxy="http://127.0.0.1:1", no_proxy="") == 0
