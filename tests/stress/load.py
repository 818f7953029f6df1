"""Load on a service from a process of its own: `python -m tests.stress.load` with a plan on stdin.

In an open loop a latency counts from when its request was due, as in tests/benchmarks/serving/client.py.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from tests.benchmarks.serving.client import LATE_S, Connection, percentile

ROOT = Path(__file__).parents[2]
FIRST_SEED = itertools.count(0, 10**7)  # no two loads of a test ask for the same
Template = tuple[str, str, str]  # method, path and body, in which %d is the next seed


@dataclass
class Report:
    """What came of a load; times in seconds."""

    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    in_time: int = 0  # answers 2xx within the deadline
    p99: float = float("nan")  # of answers 2xx
    unanswered: int = 0
    without_retry_after: int = 0  # among those of 429

    @property
    def goodput(self) -> float:
        """Answers 2xx within the deadline, a second."""
        return self.in_time / self.seconds


@dataclass(frozen=True)
class Plan:
    """Templates by turns over so many connections: for `seconds`, or so many `requests`, or at a `rate`."""

    port: int
    templates: list[Template]
    connections: int
    seconds: float = 600.0
    requests: int | None = None
    rate: float | None = None
    deadline: float = 10.0
    first_seed: int = field(default_factory=lambda: next(FIRST_SEED))

    def moments(self, start: float) -> Iterator[float]:
        """Yield when each request is due: in an open loop at its moment, else at once until the end."""
        if self.rate is not None:
            yield from (start + turn / self.rate for turn in range(int(self.rate * self.seconds)))
            return
        for _ in range(self.requests) if self.requests else itertools.count():
            if (now := time.perf_counter()) > start + self.seconds:
                return
            yield now

    def questions(self) -> Iterator[bytes]:
        """Yield the requests as bytes."""
        for turn, (method, path, body) in enumerate(itertools.cycle(self.templates)):
            path, body = (text.replace("%d", str(self.first_seed + turn)) for text in (path, body))
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            yield f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Client(Connection):
    """A connection that notes whether an answer says when to come again."""

    retry_after = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is of no class of asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def on_message_begin(self) -> None:
        """Forget the answer before."""
        self.retry_after = False

    def on_header(self, name: bytes, _: bytes) -> None:
        """Look for one header."""
        self.retry_after |= name.lower() == b"retry-after"


async def carry_out(plan: Plan) -> Report:
    """Ask, and count what is answered; what is not answered LATE_S after the end is given up."""
    statuses, good, report = Counter[str](), list[float](), Report()
    clock = time.perf_counter
    start = clock()
    moments, questions = plan.moments(start), plan.questions()

    async def work() -> None:
        client = Client()
        for due in moments:  # shared: each moment goes to the first connection that is free
            await asyncio.sleep(due - clock())
            try:
                status = await client.ask(next(questions), plan.port)
            except OSError:
                report.unanswered += 1
                continue
            statuses[str(status)] += 1
            if status < 300:
                good.append(clock() - due)
            report.without_retry_after += status == 429 and not client.retry_after

    workers = [asyncio.create_task(work()) for _ in range(plan.connections)]
    done, late = await asyncio.wait(workers, timeout=plan.seconds + LATE_S)
    for task in late:
        task.cancel()
    for task in done:
        task.result()  # a defect of this file is raised
    report.seconds, report.statuses = clock() - start, dict(statuses)
    report.unanswered += len(late) + sum(1 for _ in moments if plan.rate)
    report.in_time = sum(latency <= plan.deadline for latency in good)
    report.p99 = percentile(sorted(good), 0.99)
    return report


def load(plan: Plan) -> Report:
    """Carry out a plan in another process."""
    command = [sys.executable, "-m", "tests.stress.load"]
    ran = subprocess.run(
        command,
        input=json.dumps(asdict(plan)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=plan.seconds + 4 * LATE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    report = Report(**json.loads(ran.stdout))
    print(report)  # pytest shows it with -s, or where a test fails
    return report


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(carry_out(Plan(**json.load(sys.stdin)))))))
