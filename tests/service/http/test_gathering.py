"""While many are refused, what comes waits a moment and is read together; nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from service.http.gathering import EVERY_S, FOR_S, MANY, MOST_KEPT, Gathering
from tests.running import listening
from tests.service.http.raw import talk

pytestmark = pytest.mark.anyio
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
GENERATE = LAST.replace(b"/livez", b"/generate?seed=1")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on the loop that the service runs on."""
    return "asyncio", {"use_uvloop": True}


class Reader:
    """What keeps what it reads, in a list that all share; a failing one reads nothing."""

    def __init__(self, read: list[bytes], failing: bool = False) -> None:
        self._read, self._failing = read, failing
        self.transport = cast("asyncio.Transport", self)
        self.aborted = False

    def read(self, data: bytes) -> None:
        """Read it."""
        if self._failing:
            raise ValueError
        self._read.append(data)

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


def flooded() -> Gathering:
    """Return what has seen many refusals."""
    gathering = Gathering()
    for _ in range(MANY):
        gathering.note()
    return gathering


async def test_nothing_waits_without_a_flood() -> None:
    """What comes is to be read at once, after a few refusals too, and when a flood is over."""
    gathering, read = Gathering(), list[bytes]()
    for _ in range(MANY - 1):
        gathering.note()
        assert not gathering.keep(Reader(read), b"before")
    gathering.note()
    assert gathering.keep(Reader(read), b"in it")
    await asyncio.sleep(FOR_S + EVERY_S)
    assert not gathering.keep(Reader(read), b"after")
    assert read == [b"in it"]


async def test_many_refusals_take_time_to_be_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals that come seldom are no flood, however many."""
    monkeypatch.setattr("service.http.gathering.IN_S", 0.01)
    gathering = Gathering()
    for _ in range(2 * MANY):
        gathering.note()
        await asyncio.sleep(0.002)
    assert not gathering.keep(Reader([]), b"")


async def test_what_comes_is_read_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before the moment, and what comes when the flood is over does not overtake."""
    gathering, read = flooded(), list[bytes]()
    assert gathering.keep(Reader(read), b"first")
    monkeypatch.setattr("service.http.gathering.FOR_S", 0.0)
    gathering.note()
    assert gathering.keep(Reader(read), b"behind")
    assert read == []
    await asyncio.sleep(2 * EVERY_S)
    assert read == [b"first", b"behind"]


async def test_a_second_part_lets_the_first_be_read() -> None:
    """Of one reader nothing is kept behind another part, so that its client can be held up."""
    gathering, read = flooded(), list[bytes]()
    reader = Reader(read)
    for data in (b"first", b"second"):
        assert gathering.keep(reader, data)
    assert (read, gathering.holds(reader)) == ([b"first"], True)
    gathering.end()
    assert (read, gathering.holds(reader)) == ([b"first", b"second"], False)


async def test_no_more_is_kept_than_may_be() -> None:
    """What there is no room for lets all be read that is kept, and waits itself."""
    gathering, read = flooded(), list[bytes]()
    parts = [b"%d" % i for i in range(MOST_KEPT + 1)]
    for part in parts:
        assert len(read) == 0
        assert gathering.keep(Reader(read), part)
    assert read == parts[:-1]
    await asyncio.sleep(2 * EVERY_S)
    assert read == parts


async def test_one_that_fails_is_nothing_to_others(caplog: pytest.LogCaptureFixture) -> None:
    """Its connection ends; what comes behind it is read all the same."""
    gathering, read = flooded(), list[bytes]()
    failing = Reader(read, failing=True)
    gathering.keep(failing, b"")
    gathering.keep(Reader(read), b"behind")
    gathering.end()
    assert (read, failing.aborted) == ([b"behind"], True)
    assert "ValueError" in caplog.text


async def test_refusals_make_a_flood(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those who ask more often than they may, too."""
    tiny_model()
    gathering = Gathering()
    monkeypatch.setattr("service.app.Gathering", lambda: gathering)
    for name in ("IN_S", "FOR_S"):
        monkeypatch.setattr(f"service.http.gathering.{name}", 60)
    async with listening(models_dir, rate_limit=0.001, rate_burst=1) as port:
        asked = [await talk(port, [GENERATE]) for _ in range(MANY + 1)]
    assert [answer.split()[1] for answer, _ in asked] == [b"200", *[b"429"] * MANY]
    assert gathering.keep(Reader([]), b"")


@pytest.fixture
def flood(tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every service gather."""
    tiny_model()
    monkeypatch.setattr("service.http.gathering.FOR_S", 60)
    gathering = flooded()
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


@pytest.mark.usefixtures("flood")
async def test_a_connection_that_has_asked_is_not_idle(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept when the time for a head is over came in time."""
    monkeypatch.setattr("service.http.gathering.EVERY_S", 0.3)
    async with listening(models_dir, head_timeout_s=0.2) as port:
        answer, took = await talk(port, [LAST])
    assert answer.startswith(b"HTTP/1.1 200")
    assert took >= 0.2
