"""Two processes of a service talk: answers and refusals cross whole, and silence is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.errors import FieldError, InternalError, NotReady, Stuck, UnknownModel
from service.processes.channel import Channel
from service.processes.siblings import Siblings

pytestmark = pytest.mark.anyio


async def answer(verb: str, value: Any) -> Any:
    """Do what the verb says."""
    if verb == "refuse":
        raise UnknownModel("no such", [FieldError("/name", value, ["one", "other"], "path")], {"X": "y"})
    if verb == "fail":
        raise ZeroDivisionError
    await asyncio.sleep(value if verb == "sleep" else 0)
    return [verb, value]


@asynccontextmanager
async def line() -> AsyncIterator[tuple[Channel, Channel]]:
    """Give both ends of a line."""
    ends = [await Channel.over(one, "the other", answer) for one in socket.socketpair()]
    yield ends[0], ends[1]
    for end in ends:
        end.close()
        await end.ended


async def test_both_sides_ask_at_the_same_time() -> None:
    """Answers find their questions, whichever comes first."""
    async with line() as (one, other):
        asked = [one.ask("sleep", 0.05), one.ask("echo", {"a": [1, None]}), other.ask("echo", "ü\n")]
        assert await asyncio.gather(*asked) == [["sleep", 0.05], ["echo", {"a": [1, None]}], ["echo", "ü\n"]]


async def test_a_refusal_crosses_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Class, sentence, fields and headers are kept; a defect is logged where it is, and told as one."""
    async with line() as (one, _):
        with pytest.raises(UnknownModel) as caught:
            await one.ask("refuse", "three")
        assert caught.value.detail == "no such"
        assert caught.value.errors == (FieldError("/name", "three", ["one", "other"], "path"),)
        assert caught.value.headers == {"X": "y"}
        with pytest.raises(InternalError):
            await one.ask("fail")
        assert "ZeroDivisionError" in caplog.text


async def test_silence_and_an_end_are_told() -> None:
    """One that does not answer in time is stuck; what is asked of one that ends is refused at once."""
    async with line() as (one, other):
        with pytest.raises(Stuck, match=r"the other has not answered for \d+ s"):
            await one.ask("sleep", 0.05, patience_s=0.01)
        assert await one.ask("echo", 1) == ["echo", 1]
        waiting = asyncio.create_task(one.ask("sleep", 5.0, patience_s=10))
        await asyncio.sleep(0.01)
        other.close()
        with pytest.raises(NotReady, match="the other has ended"):
            await waiting
        with pytest.raises(NotReady, match="the other has ended"):
            await one.ask("echo", 2)


async def test_what_one_is_told_all_do() -> None:
    """Whichever of three processes is asked: all answers are gathered, and all change in one order."""
    processes, done = [Siblings() for _ in range(3)], []
    for number, siblings in enumerate(processes):

        async def tell(value: Any, number: int = number) -> Any:
            await asyncio.sleep(0.01 * (3 - number))
            done.append((number, value))
            return number

        async def attempt(_: Any, number: int = number) -> None:
            if number == 0:
                raise UnknownModel("no such")
            done.append((number, "tried"))

        siblings.on("tell", tell)
        siblings.on("attempt", attempt)
    ends = []
    for other in processes[1:]:
        ours, theirs = socket.socketpair()
        ends += [await Channel.over(ours, "other", processes[0].answer)]
        ends += [await Channel.over(theirs, "first", other.answer)]
        processes[0].add(ends[-2])
        other.follow(ends[-1])
    for siblings in processes:
        assert sorted(await siblings.gather("tell")) == [0, 1, 2]
        assert await siblings.ask_first("tell") == 0
    done.clear()
    assert await asyncio.gather(*(one.change("tell", i) for i, one in enumerate(processes))) == [0, 0, 0]
    orders = {tuple(value for who, value in done if who == number) for number in range(3)}
    assert len(orders) == 1
    assert set(orders.pop()) == {0, 1, 2}
    for siblings in processes:
        done.clear()
        with pytest.raises(UnknownModel, match="no such"):
            await siblings.change("attempt")
        # whatever the first refuses, and once more, as it came to something else there
        assert sorted(done) == [(1, "tried"), (1, "tried"), (2, "tried"), (2, "tried")]
    for end in ends:
        end.close()
