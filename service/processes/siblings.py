"""All processes of the service as one: what one is told, all do; what one is asked about all, it gathers.

The first process has a line to each other, and passes on what they ask of all. A service of one process is
the same without lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import Stuck
from service.processes.channel import Channel

Verb = Callable[[Any], Awaitable[Any]]
PATIENCE_S = 2.0  # of a question that needs no work
CHANGE_PATIENCE_S = 120.0  # of one that loads models


class Siblings:
    """All processes, by the verbs that each of them answers in the same way."""

    def __init__(self) -> None:
        self._verbs: dict[str, Verb] = {}
        self._others: list[Channel] = []  # of the first process
        self._first: Channel | None = None  # of another
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    def on(self, verb: str, answer: Verb) -> None:
        """Let this be what the process answers; values are what JSON can carry."""
        self._verbs[verb] = answer

    def add(self, other: Channel) -> None:
        """Join another process to this, the first."""
        self._others.append(other)

    def follow(self, first: Channel) -> None:
        """Join this process to the first."""
        self._first = first

    def unchanged(self) -> asyncio.Lock:
        """Hold back what changes while this is held."""
        return self._changing

    async def ask_first(self, verb: str, value: Any = None) -> Any:
        """Return the first process' answer, which has what is counted for all. Raises as gather does."""
        if self._first is not None:
            return await self._first.ask(verb, value, PATIENCE_S)
        return await self._verbs[verb](value)

    async def gather(
        self, verb: str, value: Any = None, patience_s: float = PATIENCE_S, silence_s: float = 0.0
    ) -> list[Any]:
        """Return every process' answer, without those that are late but have been silent for less than that.

        Raises Stuck, NotReady, and what answering raises.
        """
        if self._first is not None:
            asked = [verb, value, patience_s, silence_s]
            asking = _ask(self._first, "gather", asked, patience_s + PATIENCE_S, silence_s)
            return [answer for answers in await asking for answer in answers]
        others = [_ask(other, verb, value, patience_s, silence_s) for other in self._others]
        own, *found = await asyncio.gather(self._verbs[verb](value), *others)
        return [own, *(answer for answers in found for answer in answers)]

    async def change(self, verb: str, value: Any = None) -> Any:
        """Let every process do something, in the same order as everything else that changes.

        Each does it, whatever comes of it in others, and though whoever asked has left; where it comes to
        something else in one of them, all do it once more. Returns the first one's first answer; raises what
        doing it raises, Stuck and NotReady.
        """
        if self._first is not None:
            return await self._first.ask("change", [verb, value], 2 * CHANGE_PATIENCE_S)
        change = asyncio.create_task(self._change(verb, value))
        self._changes.add(change)  # the loop itself would not keep it alive
        change.add_done_callback(self._changes.discard)
        return await asyncio.shield(change)

    async def _change(self, verb: str, value: Any) -> Any:
        async with self.unchanged():
            answers = await self._everywhere(verb, value)
            if len(set(map(repr, answers))) > 1:
                await self._everywhere(verb, value)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers[0]

    async def _everywhere(self, verb: str, value: Any) -> list[Any]:
        others = [other.ask(verb, value, CHANGE_PATIENCE_S) for other in self._others]
        return await asyncio.gather(self._verbs[verb](value), *others, return_exceptions=True)

    async def answer(self, verb: str, value: Any) -> Any:
        """Answer what another process asks, for this one or for all."""
        if verb == "gather":
            return await self.gather(*value)
        if verb == "change":
            return await self.change(*value)
        return await self._verbs[verb](value)


async def _ask(other: Channel, verb: str, value: Any, patience_s: float, silence_s: float) -> list[Any]:
    """Return another's answer; nothing where it is late, but has been silent for less than that."""
    try:
        return [await other.ask(verb, value, patience_s)]
    except Stuck:
        if other.silence >= silence_s:
            raise
        return []
