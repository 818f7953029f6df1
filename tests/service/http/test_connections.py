"""A client that is slow, or sends without end, costs its own connection and nothing else. Real sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.joined_writes import JoinedWrites
from tests.running import listening
from tests.service.http.raw import problem, talk

pytestmark = pytest.mark.anyio
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on the loop that the service runs on."""
    return "asyncio", {"use_uvloop": True}


class Sent(asyncio.Transport):
    """A transport that keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        """Keep it."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Keep that, too."""
        self.writes.append(b"closed")

    def get_write_buffer_size(self) -> int:
        """Return what a reader has not taken."""
        return 100


async def test_head_and_body_are_sent_together() -> None:
    """What follows in the same turn goes out with the first part, a part alone when the turn ends."""
    sent = Sent()
    joined = JoinedWrites(sent, asyncio.get_running_loop())
    for part in (b"head ", b"body", b"head "):
        joined.write(part)
    assert (sent.writes, joined.get_write_buffer_size()) == ([b"head body"], 105)
    await asyncio.sleep(0.01)
    assert sent.writes == [b"head body", b"head "]
    joined.write(b"last")
    joined.close()
    assert sent.writes == [b"head body", b"head ", b"last", b"closed"]


@pytest.mark.parametrize(
    "pieces", [[], [b"\r\n"] * 200, [GET[:20]], [GET[:5]] + [b"a"] * 200, [GET[:-2]] + [b"x: y\r\n"] * 200]
)
async def test_a_head_that_does_not_end_is_not_waited_for(
    tiny_model: Callable[..., Path], models_dir: Path, pieces: list[bytes]
) -> None:
    """Whether it stands still or drips, a connection without a request is closed after the time limit."""
    tiny_model()
    async with listening(models_dir, head_timeout_s=0.5) as port:
        answer, took = await talk(port, pieces, pause=0.05)
    assert answer == b""
    assert 0.4 < took < 8


@pytest.mark.parametrize("body", [[], [b" "] * 400])
async def test_a_body_that_does_not_end_is_408(
    tiny_model: Callable[..., Path], models_dir: Path, body: list[bytes]
) -> None:
    """Whether it stands still or drips."""
    tiny_model()
    async with listening(models_dir, body_timeout_s=0.5) as port:
        answer, took = await talk(port, [POST, *body], pause=0.02)
    assert (problem(answer)["status"], problem(answer)["code"]) == (408, "slow_body")
    assert "0.5 seconds" in problem(answer)["detail"]
    assert 0.4 < took < 8


@pytest.mark.parametrize(
    "pieces",
    [
        [GET[:-2] + b"x: " + b"y" * 100_000 + b"\r\n\r\n"],
        [GET[:-2] + b"x: y\r\n" * 20_000 + b"\r\n"],
        [b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n"],
        itertools.chain([GET[:-2], b"x: "], itertools.repeat(b"y" * 1000)),
        itertools.chain([GET[:-2]], itertools.repeat(b"x: y\r\n" * 100)),
    ],
    ids=["large", "many", "url", "endless", "endlessly many"],
)
async def test_a_flood_of_headers_is_431(
    tiny_model: Callable[..., Path], models_dir: Path, pieces: Iterable[bytes]
) -> None:
    """What no honest client sends is refused when it grows, not when memory ends."""
    tiny_model()
    async with listening(models_dir) as port:
        answer, _ = await talk(port, pieces)
    assert (problem(answer)["status"], problem(answer)["code"]) == (431, "head_too_large")
    assert "65536 bytes" in problem(answer)["detail"]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET /a b HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_is_a_problem(
    tiny_model: Callable[..., Path], models_dir: Path, noise: bytes
) -> None:
    """Even what no route ever sees is answered in the one form of errors."""
    tiny_model()
    async with listening(models_dir) as port:
        answer, _ = await talk(port, [noise])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem(answer)["code"] == "malformed_request"


async def test_a_connection_between_requests_is_kept(
    tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """The limit is on a head that comes, not on the pause before it."""
    tiny_model()
    async with listening(models_dir, head_timeout_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.5)
        writer.close()


async def test_slow_readers_hold_no_thread_and_are_cut(
    tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """With one thread and eight clients that take nothing of megabytes, the ninth is answered."""
    tiny_model()
    ask = b"GET /generate?seed=1&count=64 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    async with listening(models_dir, send_timeout_s=1) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(8)]
        for _, writer in slow:
            writer.write(ask)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            assert (await client.get("/generate?seed=2")).status_code == 200
            end = time.monotonic() + 20
            while "cogan_requests_in_flight 1.0" not in (await client.get("/metrics")).text:
                assert time.monotonic() < end
                await asyncio.sleep(0.2)
        for reader, writer in slow:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(2**30)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
