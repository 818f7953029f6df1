"""A request's body, read whole within limits; and a watch on the client, who may leave early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Message, Receive

from service.errors import SlowBody, TooLarge, UnsupportedMediaType
from service.timers import Timers

WATCH_AFTER_S = 0.02


class Reply(Protocol):
    """What is known of an answer on its way."""

    ended: bool


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], limit: int, timeout_s: float, timers: Timers
) -> bytes | None:
    """Read a request's whole body; None where the client left meanwhile.

    Raises TooLarge, SlowBody, and UnsupportedMediaType for one that is compressed.
    """
    if (size := int(headers.get(b"content-length", b"0"))) > limit:
        raise _too_large(limit)
    if not size and b"transfer-encoding" not in headers:
        return b"" if (await receive())["type"] == "http.request" else None
    if (coding := headers.get(b"content-encoding", b"").decode("latin-1").lower()) not in ("", "identity"):
        detail = f"the body must not be compressed, and is by {coding!r:.40}"
        raise UnsupportedMediaType(detail, headers={"Accept-Encoding": "identity"})
    try:
        with timers.timeout(timeout_s):
            return await _read(receive, limit)
    except TimeoutError:
        detail = f"the body did not arrive within {timeout_s:g} seconds"
        raise SlowBody(detail, headers={"Connection": "close"}) from None


async def _read(receive: Receive, limit: int) -> bytes | None:
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)
    return None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes")  # what of it still comes is thrown away


async def watched(
    receive: Receive, body: bytes, reply: Reply, answer: Callable[[Receive], Awaitable[Any]], timers: Timers
) -> None:
    """Let a request be answered, and cancel that when the client leaves.

    The client is looked for after WATCH_AFTER_S; what is answered sooner is not worth a task.
    """
    answering, watching = asyncio.current_task(), set[asyncio.Task[None]]()
    assert answering is not None
    left, unread = asyncio.Event(), [body]

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        if not reply.ended:
            answering.cancel()

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    def begin() -> None:
        watching.add(asyncio.create_task(watch()))

    alarm = timers.call_at(asyncio.get_running_loop().time() + WATCH_AFTER_S, begin)
    try:
        await answer(replay)
    except asyncio.CancelledError:
        if not left.is_set():
            raise
        answering.uncancel()
    finally:
        alarm.cancel()
        for task in watching:
            task.cancel()
