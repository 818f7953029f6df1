"""In a flood, what comes waits a moment and is read together, in its order; nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from service.http.gathering import EVERY_S, FOR_S, MOST_PARTS, Gathering
from tests.running import listening
from tests.service.http.raw import talk

pytestmark = pytest.mark.anyio
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on the loop that the service runs on."""
    return "asyncio", {"use_uvloop": True}


async def test_nothing_waits_without_a_flood() -> None:
    """What comes is to be read at once, before a flood and after it."""
    gathering, read = Gathering(), list[bytes]()
    assert not gathering.keep(read.append, b"before")
    gathering.begin()
    assert gathering.keep(read.append, b"in it")
    await asyncio.sleep(FOR_S + EVERY_S)
    assert not gathering.keep(read.append, b"after")
    assert read == [b"in it"]


async def test_what_comes_is_read_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before the moment, and what comes when the flood is over does not overtake."""
    gathering, read = Gathering(), list[bytes]()
    gathering.begin()
    assert gathering.keep(read.append, b"first")
    monkeypatch.setattr("service.http.gathering.FOR_S", 0.0)
    gathering.begin()
    assert gathering.keep(read.append, b"behind")
    assert read == []
    await asyncio.sleep(2 * EVERY_S)
    assert read == [b"first", b"behind"]


async def test_no_more_is_kept_than_may_be() -> None:
    """The last part that there is room for lets all be read."""
    gathering, read = Gathering(), list[bytes]()
    gathering.begin()
    for i in range(MOST_PARTS):
        assert len(read) == 0
        assert gathering.keep(read.append, b"%d" % i)
    assert read == [b"%d" % i for i in range(MOST_PARTS)]


def fail(_: bytes) -> None:
    """Fail to read."""
    raise ValueError


async def test_one_that_fails_is_nothing_to_others() -> None:
    """What comes behind it is read all the same."""
    gathering, read, failures = Gathering(), list[bytes](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    gathering.begin()
    gathering.keep(fail, b"")
    gathering.keep(read.append, b"behind")
    await asyncio.sleep(2 * EVERY_S)
    assert (read, [type(failure) for failure in failures]) == ([b"behind"], [ValueError])


@pytest.fixture
def flood(tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every service gather."""
    tiny_model()
    monkeypatch.setattr("service.http.gathering.FOR_S", 60)
    gathering = Gathering()
    gathering.begin()
    monkeypatch.setattr("service.app.Gathering", lambda: gathering)


@pytest.mark.usefixtures("flood")
async def test_a_connection_is_answered_in_a_flood(models_dir: Path) -> None:
    """A request in pieces, one in the same piece and one behind: a little later, as ever."""
    async with listening(models_dir) as port:
        answer, took = await talk(port, [GET[:9], GET[9:] + GET, LAST], pause=EVERY_S / 4)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert took >= EVERY_S


@pytest.mark.usefixtures("flood")
async def test_what_has_come_is_answered_at_the_end(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that ends does not leave what it has kept."""
    monkeypatch.setattr("service.http.gathering.EVERY_S", 60)
    async with listening(models_dir) as port:
        asking = asyncio.create_task(talk(port, [GET]))
        await asyncio.sleep(0.1)
        assert not asking.done()
    assert (await asking)[0].startswith(b"HTTP/1.1 200")
