"""Bytes to a service and back, without a client that would correct them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


async def talk(port: int, pieces: Iterable[bytes], pause: float = 0.0) -> tuple[bytes, float]:
    """Send pieces until they end or the service closes; return all that it sent, and the seconds until it closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.monotonic()

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    sending = asyncio.create_task(send())
    answer = b""
    try:
        while more := await asyncio.wait_for(reader.read(2**16), 30):
            answer += more
    except ConnectionError:
        pass
    took = time.monotonic() - start
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer, took


def problem(answer: bytes) -> dict[str, Any]:
    """Return the problem in a response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head.lower()
    return dict(json.loads(body))
