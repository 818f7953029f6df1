"""The real process: it starts in one line, drains on SIGTERM, and notices clients that leave."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.http.server import Server
from service.settings import Settings
from tests.running import START, Service


def says(message: str, line: dict[str, Any]) -> bool:
    """Whether a log line begins so."""
    return str(line["message"]).startswith(message)


def test_start_says_where_and_what(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """One line has the address and the models; then it answers."""
    tiny_model()
    service = start()
    line = service.wait_for(lambda line: "url" in line)
    assert (line["models"], line["level"]) == (["tiny"], "info")
    assert httpx.get(f"{service.url}/generate?seed=7").status_code == 200


def test_sigterm_ends_a_start(models_dir: Path) -> None:
    """It is heard before there is a server, for whom process 1 of a container would wait in vain."""
    command = [sys.executable, "-m", "service"]
    environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": "0"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        status, end = Path(f"/proc/{process.pid}/status"), time.monotonic() + START
        while not _hears(status.read_text(), signal.SIGTERM):
            assert time.monotonic() < end
        process.terminate()
        _, said = process.communicate(timeout=START)
    assert (process.returncode, said) == (0, "")


def _hears(status: str, number: int) -> bool:
    """Say whether a process has a handler of a signal, by what Linux tells of it."""
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_sigterm_drains(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """Readiness fails first; what is asked before or during the delay is answered; then it exits 0."""
    tiny_model(turns=200_000)
    service = start(drain_delay_s=1, threads=1, max_batch=1, cache_bytes=0)
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(httpx.get, f"{service.url}/generate?seed={i}", timeout=30) for i in range(3)]
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = httpx.get(f"{service.url}/readyz")
        late = httpx.get(f"{service.url}/generate?seed=9", timeout=30)
        assert [answer.result().status_code for answer in accepted] == [200] * 3
    assert (ready.status_code, ready.headers["connection"]) == (503, "close")
    assert "on its way out" in ready.json()["detail"]
    assert late.status_code == 200
    assert service.process.wait(15) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/livez")


def test_sighup_looks_at_the_models_again(
    tiny_model: Callable[..., Path], start: Callable[..., Service]
) -> None:
    """A new version is served without a restart, and a broken one after it changes nothing."""
    tiny_model()
    service = start()
    for version, served in (("2", "2"), ("3", "2")):
        path = tiny_model(version=version)
        if version != served:
            path.write_bytes(b"junk")
        message = f"model {'served' if version == served else 'refused'}: tiny/{version}"
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(partial(says, message))
        assert httpx.get(f"{service.url}/generate?seed=7").json()["version"] == served


@pytest.mark.anyio
async def test_what_grace_does_not_reach_is_503(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A request that is still drawn when the grace ends is told so, and when to come again."""
    tiny_model(turns=1_500_000)
    settings = Settings(models_dir=models_dir, port=0, threads=1, processes=1)
    app = create_app(settings)
    server = Server(app, settings)
    server.config.timeout_graceful_shutdown = 0
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=START) as client:
        asking = asyncio.create_task(client.get("/generate?seed=7&count=64"))
        await asyncio.sleep(0.2)
        server.should_exit = True
        answer = await asking
    await serving
    assert app.state.registry.longest_run > 0.0  # it has ended before the run
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "5"


def test_ctrl_c_skips_the_delay(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """A person at a terminal does not wait for a load balancer."""
    tiny_model()
    service = start(drain_delay_s=60)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(15) == 0


def test_clients_that_leave_are_not_drawn(
    tiny_model: Callable[..., Path], start: Callable[..., Service]
) -> None:
    """Of twenty clients that close their sockets at once, those still waiting cost no run."""
    tiny_model(turns=400_000)
    service = start(threads=1, max_batch=1)
    host, port = service.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(20)]
    for i, client in enumerate(clients):
        client.sendall(f"GET /generate?seed={i} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    time.sleep(0.3)
    for client in clients:
        client.close()
    service.wait_for(lambda _: sum("status" in line for line in service.lines) == 20)
    answered = [line for line in service.lines if line.get("status") == 200]  # before the sockets closed
    assert sum(line.get("status") == 499 for line in service.lines) == 20 - len(answered)
    text = httpx.get(f"{service.url}/metrics").text
    assert 'cogan_queue_depth{model="tiny"} 0.0' in text
    assert "cogan_requests_in_flight 1.0" in text
    drawn = next(line for line in text.splitlines() if line.startswith("cogan_samples_total"))
    assert len(answered) <= float(drawn.split()[-1]) <= 3
    assert httpx.get(f"{service.url}/generate?seed=100", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"COGAN_PORT": "http"}, "COGAN_PORT = 'http': Input should be a valid integer"),
        ({"COGAN_PROVIDER": "cuda"}, "COGAN_PROVIDER = 'cuda' needs onnxruntime's CUDAExecutionProvider"),
        ({"COGAN_DEFAULT_MODEL": "nobody"}, "COGAN_DEFAULT_MODEL = 'nobody' is not served; served are tiny"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(
    tiny_model: Callable[..., Path], models_dir: Path, settings: dict[str, str], complaint: str
) -> None:
    """No traceback: one line that says what is wrong, and exit status 2."""
    tiny_model()
    environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": "0"} | settings
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
