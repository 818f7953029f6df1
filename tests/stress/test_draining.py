"""SIGTERM under load: not ready first, then every request that was taken is answered to its last byte."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.running import Service
from tests.stress.forms import forms

DELAY_S, DEADLINE_S = 1.0, 10.0
SEEDS = itertools.count()


@dataclass
class Tally:
    """What the clients got: how many whole answers by status, and how many that end in the middle."""

    whole: dict[int, int] = field(default_factory=dict)
    cut: int = 0


async def ask_on(port: int, tally: Tally) -> None:
    """Ask as long as one can connect, over connections that are kept as long as they may be."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        try:
            while await _ask(reader, writer, tally):
                pass
        except ConnectionError:
            pass  # whether an answer was on its way, the service's log says
        except asyncio.IncompleteReadError as error:
            tally.cut += bool(error.partial)
        finally:
            writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally) -> bool:
    """Ask once; return whether the connection stays."""
    writer.write(b"GET /generate?seed=%d&count=8 HTTP/1.1\r\nHost: x\r\n\r\n" % next(SEEDS))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    assert length, head
    await reader.readexactly(int(length[1]))
    status = int(head.split()[1])
    tally.whole[status] = tally.whole.get(status, 0) + 1
    return b"connection: close" not in head


async def load_and_end(service: Service, connections: int) -> tuple[Tally, float]:
    """Send SIGTERM amid the load; return what was answered, and the seconds until it was not ready."""
    tally = Tally()
    asking = [asyncio.create_task(ask_on(service.port, tally)) for _ in range(connections)]
    while tally.whole.get(200, 0) < connections:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=service.url) as client:
        assert (await client.get("/readyz")).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        while (await client.get("/readyz")).status_code == 200:
            assert time.monotonic() < sent + DELAY_S  # else listening ends before
        unready, before = time.monotonic() - sent, tally.whole[200]
        await asyncio.gather(*asking)
    assert tally.whole[200] > before  # it went on answering
    return tally, unready


@pytest.mark.parametrize(("connections", "rounds"), forms((16, 1), (64, 10)))
def test_what_was_taken_is_answered_whole(
    tiny_model: Callable[..., Path], start: Callable[..., Service], connections: int, rounds: int
) -> None:
    """As many whole answers at the clients as lines in the log, none a refusal; exit status 0 in time."""
    tiny_model(turns=30_000)
    for _ in range(rounds):
        service = start(drain_delay_s=DELAY_S, deadline_s=DEADLINE_S, max_batch=8, cache_bytes=0)
        begun = time.monotonic()
        tally, unready = asyncio.run(load_and_end(service, connections))
        assert service.process.wait(DELAY_S + DEADLINE_S + 5) == 0
        service.stop()  # and its last lines are read
        answered = [line["status"] for line in service.lines if line.get("route") == "/generate"]
        print(tally, f"not ready after {unready:.3f} s, ended after {time.monotonic() - begun:.1f} s")
        assert tally.cut == 0
        assert tally.whole == {200: len(answered)}
        assert set(answered) == {200}
