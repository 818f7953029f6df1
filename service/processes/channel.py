"""A line between two processes of one service: each may ask the other, any number of questions at a time.

A message is a line of JSON: a question {id, verb, value}, its answer {id, answer}, or {id, error} with what
a RequestError holds, which is raised where the question was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from itertools import count
from typing import Any, Self

from service.errors import FieldError, InternalError, NotReady, RequestError, Stuck

logger = logging.getLogger("cogan.channel")
LONGEST_LINE = 2**24
Answerer = Callable[[str, Any], Awaitable[Any]]


class Channel:
    """One end of the line; belongs to an event loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, answerer: Answerer
    ) -> None:
        self.name, self._reader, self._writer, self._answerer = name, reader, writer, answerer
        self._ids, self._asked = count(), dict[int, asyncio.Future[Any]]()
        self._answering: set[asyncio.Task[None]] = set()
        self._heard_at = time.monotonic()
        self.ended = asyncio.create_task(self._listen())

    @classmethod
    async def over(cls, line: socket.socket, name: str, answerer: Answerer) -> Self:
        """Open one end of a connected pair of sockets; `name` says who is at the other."""
        reader, writer = await asyncio.open_connection(sock=line, limit=LONGEST_LINE)
        return cls(reader, writer, name, answerer)

    async def ask(self, verb: str, value: Any = None, patience_s: float = 2.0) -> Any:
        """Return the other's answer.

        Raises what it raises, Stuck where it does not answer in time, and NotReady where it has ended.
        """
        if self.ended.done():
            raise NotReady(f"{self.name} has ended")
        number = next(self._ids)
        if not self._asked:
            self._heard_at = time.monotonic()  # nothing was due until now
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self._send(id=number, verb=verb, value=value)
            return await asyncio.wait_for(answer, patience_s)
        except TimeoutError as error:
            raise Stuck(f"{self.name} has not answered for {self.silence:.0f} s") from error
        finally:
            del self._asked[number]

    @property
    def silence(self) -> float:
        """The seconds for which nothing has come while something was asked."""
        return time.monotonic() - self._heard_at

    def close(self) -> None:
        """End the line."""
        self._writer.close()

    def _send(self, **message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            async for line in self._reader:
                self._take(json.loads(line))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NotReady(f"{self.name} has ended"))

    def _take(self, message: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        if "verb" in message:
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)  # the loop itself would not keep it alive
            task.add_done_callback(self._answering.discard)
            return
        answer = self._asked.get(message["id"])
        if answer is None or answer.done():  # too late
            return
        if "error" in message:
            answer.set_exception(_unpack(message["error"]))
        else:
            answer.set_result(message["answer"])

    async def _answer(self, question: dict[str, Any]) -> None:
        try:
            answer = await self._answerer(question["verb"], question["value"])
            self._send(id=question["id"], answer=answer)
        except RequestError as error:
            self._send(id=question["id"], error=_pack(error))
        except Exception:
            logger.exception("%s asked for %s", self.name, question["verb"])
            self._send(id=question["id"], error=_pack(InternalError("another process failed; see the log")))


def _pack(error: RequestError) -> dict[str, Any]:
    fields = [asdict(field) for field in error.errors]
    return {"code": error.code, "detail": error.detail, "errors": fields, "headers": error.headers}


def _unpack(packed: dict[str, Any]) -> RequestError:
    kinds: dict[str, type[RequestError]] = {kind.code: kind for kind in RequestError.__subclasses__()}
    fields = [FieldError(**field) for field in packed["errors"]]
    return kinds[packed["code"]](packed["detail"], fields, packed["headers"])
