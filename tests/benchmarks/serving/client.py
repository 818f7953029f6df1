"""A load generator in a process of its own: `python -m tests.benchmarks.serving.client` with a plan on stdin.

Closed loop: every connection asks again as soon as it is answered. Open loop: requests are due at a fixed
rate whether or not earlier ones are answered, and a latency counts from when its request was due, so that a
server which stalls cannot hide the requests that it kept from being sent ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import json
import selectors
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httptools

LATE_S = 10.0  # how long answers are waited for after the end


@dataclass
class Result:
    """What came of a plan: latencies in seconds, and how many requests had no answer or an error for one."""

    latencies: list[float]
    errors: int = 0


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: asks, and waits for the whole answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None

    async def ask(self, request: bytes, port: int) -> int:
        """Send a request, connecting first where needed; return the status. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, "127.0.0.1", port)
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = loop.create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Hand over the status of a whole answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        """Connect anew next time."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))


def requests(plan: dict[str, Any]) -> Iterator[bytes]:
    """Yield the requests of a plan, each with the next seed."""
    for turn in itertools.count():
        seed = plan["first"] + turn % plan["seeds"]
        path, body = (plan[part].replace("%d", str(seed)) for part in ("path", "body"))
        head = f"{plan['method']} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        if plan["etag"]:
            head += f"If-None-Match: {plan['etag']}\r\n"
        yield f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def run(plan: dict[str, Any]) -> Result:
    """Carry out a plan: in a closed loop, or in an open one where it has a rate."""
    result, source = Result([]), requests(plan)
    clock, start = time.perf_counter, time.perf_counter() + 0.05
    due = (
        itertools.repeat(0.0)
        if plan["rate"] is None
        else (start + turn / plan["rate"] for turn in range(int(plan["rate"] * plan["seconds"])))
    )

    async def work() -> None:
        connection = Connection()
        for moment in due:  # shared: each moment goes to the first connection that is free
            if plan["rate"] is None and clock() > start + plan["seconds"]:
                return
            if (early := moment - clock()) > 0:
                await asyncio.sleep(early)
            asked = moment or clock()
            try:
                good = await connection.ask(next(source), plan["port"]) < 400
            except OSError:
                good = False
            if good:
                result.latencies.append(clock() - asked)
            result.errors += not good

    workers = [asyncio.create_task(work()) for _ in range(plan["connections"])]
    _, pending = await asyncio.wait(workers, timeout=plan["seconds"] + LATE_S)
    for task in pending:
        task.cancel()
    unasked = 0 if plan["rate"] is None else sum(1 for _ in due)
    result.errors += len(pending) + unasked
    return result


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that so large a share does not exceed; nan of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def main() -> None:
    """Read a plan, carry it out, and print what wrk.lua prints."""
    plan = json.load(sys.stdin)
    # select(2) waits to the microsecond; epoll, the default, to the millisecond.
    runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))
    with runner:
        begun = time.perf_counter()
        result = runner.run(run(plan))
        seconds = time.perf_counter() - begun
    ordered = sorted(result.latencies)
    report = {
        "requests": len(ordered) + result.errors,
        "errors": result.errors,
        "seconds": seconds,
        "p50_ms": percentile(ordered, 0.50) * 1e3,
        "p95_ms": percentile(ordered, 0.95) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
