"""Who is measured, and how each server is started and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.serving.peers.drawing import processors
from tests.benchmarks.serving.processes import adopt_orphans, cpu_seconds, family, memory_mb

ROOT = Path(__file__).parents[3]
OURS, ALONE = "this service", "this service, 1 process"
SETTLE_S = 3.0  # where more processes begin after the first that answers
START_S, STOP_S = 180.0, 20.0
QUIET = ("--no-access-log", "--log-level", "warning")
PEERS = "tests.benchmarks.serving.peers"


@dataclass(frozen=True)
class Arm:
    """A server under test: its command, where `{port}` stands for the port, and what it needs."""

    name: str
    command: tuple[str, ...]
    module: str | None = None  # must be installed, or the arm is skipped
    environment: Mapping[str, str] = field(default_factory=dict)
    checkout: Path = ROOT  # whose code runs

    @property
    def installed(self) -> bool:
        """Whether its library is here."""
        return self.module is None or importlib.util.find_spec(self.module) is not None


def arms(service_python: Path) -> list[Arm]:
    """List all arms; this service runs in an environment of its own."""
    fastapi = (sys.executable, "-m", "uvicorn", f"{PEERS}.plain_fastapi:app", "--port", "{port}", *QUIET)
    bento = (sys.executable, "-m", "bentoml", "serve", f"{PEERS}.bento:Generate", "--host", "127.0.0.1")
    ray = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return [
        Arm(OURS, (str(service_python), "-m", "service")),
        Arm(ALONE, (str(service_python), "-m", "service"), environment={"COGAN_PROCESSES": "1"}),
        Arm("FastAPI, 1 process", fastapi, "fastapi"),
        Arm(f"FastAPI, {processors()} processes", (*fastapi, "--workers", str(processors())), "fastapi"),
        Arm("LitServe", (sys.executable, "-m", f"{PEERS}.lit_serve"), "litserve"),
        Arm("BentoML", (*bento, "--port", "{port}"), "bentoml", {"BENTOML_DO_NOT_TRACK": "True"}),
        Arm("Ray Serve", (sys.executable, "-m", f"{PEERS}.ray_serve"), "ray", ray),
    ]


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}"

    def cpu_seconds(self) -> float:
        """Return the processor seconds that its processes have used so far."""
        return cpu_seconds(family(self.process.pid))

    def memory_mb(self) -> float:
        """Return the memory that its processes hold."""
        return memory_mb(family(self.process.pid))


@contextlib.contextmanager
def serving(arm: Arm, model: Path, scratch: Path) -> Iterator[Server]:
    """Run an arm's server on loopback until the block ends; one at a time.

    `model` is <models>/<name>/<version>/model.onnx. Call `adopt_orphans` before. Raises RuntimeError.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "BENCH_MODEL": str(model),
        "BENTOML_HOME": str(scratch / "bentoml"),
        "COGAN_MODELS_DIR": str(model.parents[2]),
        "PORT": str(port),
        "RAY_TMPDIR": str(scratch),
        "PYTHONPATH": str(arm.checkout),
        **arm.environment,
    }
    log_file = scratch / f"{arm.name}.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [word.format(port=port) for word in arm.command],
            cwd=arm.checkout,
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=adopt_orphans,  # safe: this process has one thread
        )
    server = Server(process, port)
    try:
        _wait_until_it_answers(server, log_file)
        time.sleep(SETTLE_S)
        yield server
    finally:
        _stop(process)


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Ask once, POST where there is a body; return the status and the body of the answer."""
    given = {"Content-Type": "application/json"} | dict(headers or {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _wait_until_it_answers(server: Server, log_file: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(OSError):
            if ask(f"{server.url}/generate", b'{"seed":0}')[0] == 200:
                return
        time.sleep(0.1)
    tail = log_file.read_text(errors="replace")[-1500:]
    raise RuntimeError(f"the server did not answer within {START_S:.0f} s; its last words:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server by SIGTERM, and by SIGKILL whatever it leaves behind, which this process has adopted."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid in family(os.getpid())[1:]:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    process.wait(STOP_S)
