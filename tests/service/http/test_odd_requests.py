"""Requests that few clients send and HTTP allows, and some that it does not. Real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.running import listening
from tests.service.http.raw import problem, talk

pytestmark = pytest.mark.anyio
ALIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODY = b'{"seed": 7}'
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
OFFER = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + BODY + b"\r\n0\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on the loop that the service runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def folder(tiny_model: Callable[..., Path], models_dir: Path) -> Path:
    """Return a models folder with a model."""
    tiny_model()
    return models_dir


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    folder: Path, at_once: bool
) -> None:
    """With its body, in one packet or in two, and so is what it asks next."""
    head = OFFER + b"Content-Length: %d\r\n\r\n" % len(BODY)
    pieces = [head + BODY] if at_once else [head, BODY]
    async with listening(folder) as port:
        answer, _ = await talk(port, [*pieces, LAST], pause=0.1)
    assert answer.count(b"HTTP/1.1 200") == 2
    drawn = answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0]
    assert json.loads(drawn)["pairs"][0]["seed"] == 7


async def test_an_offer_hides_no_wish_to_close(folder: Path) -> None:
    """What else `Connection` says holds; and CONNECT, which needs no offer, is no route."""
    closing = ALIVE[:-2] + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    async with listening(folder) as port:
        answer, _ = await talk(port, [closing])
        assert answer.startswith(b"HTTP/1.1 200")
        answer, _ = await talk(port, [b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 4")


async def test_few_requests_wait_for_the_one_ahead(folder: Path) -> None:
    """A flood of them on one connection is answered as far as it was taken, and closed."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [ALIVE * 5000])
    assert 1 <= answer.count(b"HTTP/1.1 200") <= 20
    assert b"HTTP/1.1 4" not in answer


async def test_what_follows_a_request_does_not_take_its_answer(folder: Path) -> None:
    """A client takes the first answer for that of its first request, whatever it sent after it."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [ALIVE + b"\x16\x03\x01 noise\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"status":"alive"}')


async def test_headers_behind_a_body_say_nothing(folder: Path) -> None:
    """They are allowed, and no client means its request id or patience by them."""
    trailers = b"X-Request-Timeout: soon\r\nX-Request-Id: trailing\r\n\r\n"
    async with listening(folder) as port:
        answer, _ = await talk(port, [CHUNKED + trailers, LAST], pause=0.3)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"trailing" not in answer


@pytest.mark.parametrize(
    "endless",
    [itertools.repeat(b"a: b\r\n" * 100), itertools.chain([b"a: "], itertools.repeat(b"b" * 1000))],
    ids=["many", "long"],
)
async def test_headers_behind_a_body_end(folder: Path, endless: Iterable[bytes]) -> None:
    """As many as in a head are refused, as there."""
    async with listening(folder) as port:
        answer, _ = await talk(port, itertools.chain([CHUNKED], endless))
    assert problem(answer)["code"] == "head_too_large"


async def test_a_body_that_is_too_large_is_told_so(folder: Path) -> None:
    """The rest of it is thrown away, so that a client that sends it first reads the answer after."""
    content = b" " * 5_000_000
    async with listening(folder) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        await reader.readuntil(b"}")
        writer.write(LAST)
        assert b"HTTP/1.1 200" in await reader.read()
        writer.close()
