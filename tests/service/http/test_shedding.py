"""In a flood, what would have to be drawn is refused unread; all else is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.engine.drawing import draw_batch
from service.http.shedding import LONGEST_BODY

pytestmark = pytest.mark.anyio
LIMITS = {"max_pairs": 2, "max_frames": 2, "max_queue": 2, "threads": 1}
REPEATED = '{"seed": 7}'
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def flood(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Fill the queue of the model `tiny`, whose run takes as long as the block."""
    over = threading.Event()

    def draw_later(batch: Any) -> Any:
        if batch[0].entry.job.model.name == "tiny":
            over.wait(60)
        return draw_batch(batch)

    monkeypatch.setattr("service.engine.batching.draw_batch", draw_later)
    monkeypatch.setattr("service.engine.batching.SOON_S", 0.0)  # by a worker, always
    waiting: list[asyncio.Task[httpx.Response]] = []
    while 'cogan_queue_depth{model="tiny"} 2.0' not in (await client.get("/metrics")).text:
        waiting.append(asyncio.create_task(client.get(f"/generate?seed={len(waiting)}&model=tiny")))
        await asyncio.sleep(0.02)  # so that it is being drawn, or waits
    try:
        yield
    finally:
        over.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_what_has_no_chance_is_not_parsed(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told when to come again, and counted by its route; other routes and repeats are answered."""
    tiny_model()
    client = connect(**LIMITS)
    for _ in range(2):
        kept = await client.post("/generate", content=REPEATED, headers=JSON)
    async with flood(client, monkeypatch):
        for refused in (
            await client.post("/generate", content='{"seed": "no seed"}'),
            await client.get("/interpolate?from=1&nonsense=2"),
        ):
            assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        assert client._transport.app.state.gathering.keep(print, b"")  # type: ignore[attr-defined]
        repeated = await client.post("/generate", content=REPEATED, headers=JSON)
        assert (repeated.status_code, repeated.content) == (200, kept.content)
        assert (await client.delete("/generate")).status_code == 405
        assert (await client.get("/models")).status_code == 200
        metrics = (await client.get("/metrics")).text
    assert 'cogan_http_requests_total{code="429",method="POST",route="/generate"} 1.0' in metrics
    assert 'cogan_http_requests_total{code="429",method="GET",route="/interpolate"} 1.0' in metrics
    assert 'cogan_rejected_total{reason="queue_full"} 2.0' in metrics
    assert (await client.get("/interpolate?from=1&nonsense=2")).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"model": "tiny"}', 429),
        ('{"model": "other"}', 200),
        ('{"model": "none"}', 404),
        ('{"model": 1}', 422),
        ('{"model": ["tiny"]}', 422),
        ("[]", 422),
        ("no JSON", 400),
        ('{"nothing": "' + "x" * LONGEST_BODY + '"}', 422),
        ('{"seed": 1, "count": 2}', 200),
    ],
)
async def test_one_queue_is_full(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    status: int,
) -> None:
    """What is not asked of its model is answered as ever: by another, which is the default one, or by 4xx."""
    tiny_model()
    tiny_model(name="other")
    client = connect(**LIMITS | {"default_model": "other"})
    async with flood(client, monkeypatch):
        asking = asyncio.create_task(client.post("/generate", content=body, headers=JSON))
        await asyncio.wait([asking], timeout=0.1 if status == 200 else None)  # who is drawn waits, too
    assert (await asking).status_code == status
