"""What else goes wrong on a machine: full disks, clocks that jump, workers that die or hang."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.http.addresses import take_address
from tests.running import ALONE, START


def test_a_full_disk_costs_the_log_alone(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Where no line can be written, every request is answered, and the service ends as it is told."""
    tiny_model()
    with take_address("127.0.0.1", 0, "COGAN_PORT")[0] as free:
        port = free.getsockname()[1]
    settings = {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": str(port), "COGAN_LOG_LEVEL": "debug"}
    with Path("/dev/full").open("w") as full, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        command = [sys.executable, "-m", "service"]
        process = subprocess.Popen(command, env=os.environ | ALONE | settings, stderr=full)
        try:
            wait_until_ready(client)
            assert client.get("/generate?seed=7").status_code == 200
            time.sleep(0.1)  # the line is due
            assert client.get("/generate?seed=8").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(START) == 0
        finally:
            process.kill()
            process.wait()


def wait_until_ready(client: httpx.Client) -> None:
    """Ask until a service answers that it is ready."""
    end, ready = time.monotonic() + START, False
    while not ready:
        assert time.monotonic() < end
        time.sleep(0.05)
        with suppress(httpx.TransportError):
            ready = client.get("/readyz").is_success


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """Python itself would wait for it for ever; what it still did is said, and the status tells."""
    code = (
        "import sys, threading, time; from service.start import _leave\n"
        "threading.Thread(target=time.sleep, args=(3600,), name='draw_0').start(); sys.exit(_leave(0))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=START
    )
    assert (ended.returncode, ended.stderr) == (1, "left behind, still at work: draw_0\n")


@pytest.mark.anyio
async def test_a_clock_that_jumps_changes_nothing(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deadlines, limits and durations are of a clock that nobody sets."""
    tiny_model(turns=200_000)
    client = connect(deadline_s=20, rate_limit=0.001, rate_burst=2)
    asking = asyncio.create_task(client.get("/generate?seed=1"))
    await asyncio.sleep(0.05)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    assert (await asking).status_code == 200
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    assert [(await client.get(f"/generate?seed={i}")).status_code for i in (2, 3)] == [200, 429]


@pytest.mark.anyio
async def test_a_worker_that_dies_is_told(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no run can raise ends a batch for good: /livez says so, and its requests have their deadline."""

    def die(_: object) -> None:
        raise SystemExit

    tiny_model()
    client = connect(stuck_after_s=0.05, deadline_s=0.3)
    monkeypatch.setattr("service.engine.batching.draw_batch", die)
    answer = await client.get("/generate?seed=1")
    assert (answer.status_code, answer.headers["server-timing"].split(";")[0]) == (504, "total")
    assert (await client.get("/livez")).status_code == 503
