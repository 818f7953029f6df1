"""What else goes wrong on a machine: clocks that jump, workers that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

Connect = Callable[..., httpx.AsyncClient]


@pytest.mark.anyio
async def test_a_clock_that_jumps_changes_nothing(
    tiny_model: Callable[..., Path], connect: Connect, monkeypatch: pytest.MonkeyPatch
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
async def test_a_run_that_dies_costs_its_requests_only(
    tiny_model: Callable[..., Path], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After what no run should raise, its requests reach their deadline, and the next ones are answered."""

    def die(_: object) -> None:
        raise SystemExit

    tiny_model()
    client = connect(stuck_after_s=0.5, deadline_s=1)
    with monkeypatch.context() as patch:
        patch.setattr("service.engine.batcher.run_batch", die)
        answer = await client.get("/generate?seed=1")
    assert (answer.status_code, answer.headers["server-timing"].split(";")[0]) == (504, "total")
    assert (await client.get("/generate?seed=1")).status_code == 200
    assert (await client.get("/livez")).status_code == 200
