"""Puts load on a server and says what came of it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tests.benchmarks.serving.servers import ROOT, Server

WRK = shutil.which("wrk")
SCRIPT = Path(__file__).with_name("wrk.lua")
MANY = 10**7  # more seeds than any measurement asks for
_first_seeds = itertools.count(MANY, MANY)  # no seed is asked for twice
GRACE_S = 60.0


@dataclass(frozen=True)
class Question:
    """A request to be repeated; `%d` in path and body stands for a seed, of which there are so many."""

    method: str = "POST"
    path: str = "/generate"
    body: str = '{"seed":%d}'
    etag: str = ""
    seeds: int = MANY
    first: int | None = None  # otherwise seeds that were never asked for
    pairs: int = 1  # in an answer


DISTINCT = Question()


class Address(Protocol):
    """Address of a server on loopback."""

    url: str
    port: int


@dataclass(frozen=True)
class Sample:
    """One measurement. Latencies in ms; closed loop where the rate is None."""

    arm: str
    what: str
    repeat: int
    connections: int
    rate: float | None
    requests: int
    errors: int
    seconds: float
    requests_per_second: float
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_seconds_per_1000_pairs: float
    memory_mb: float


@dataclass(frozen=True)
class Load:
    """How a server is asked: over so many connections, for so long, in an open loop where there is a rate."""

    connections: int
    seconds: int
    rate: float | None = None


def measure(
    server: Server,
    load: Load,
    question: Question = DISTINCT,
    *,
    arm: str,
    what: str,
    repeat: int,
    domains: int,
    use_wrk: bool = True,
) -> Sample:
    """Ask a server under a load; `domains` images are in a pair."""
    before = server.cpu_seconds()
    report = put_load(server, load, question, use_wrk=use_wrk)
    used = server.cpu_seconds() - before
    answered = report["requests"] - report["errors"]
    pairs = answered * question.pairs
    return Sample(
        arm=arm,
        what=what,
        repeat=repeat,
        connections=load.connections,
        rate=load.rate,
        requests=int(report["requests"]),
        errors=int(report["errors"]),
        seconds=report["seconds"],
        requests_per_second=answered / report["seconds"],
        images_per_second=pairs * domains / report["seconds"],
        p50_ms=report["p50_ms"],
        p95_ms=report["p95_ms"],
        p99_ms=report["p99_ms"],
        cpu_seconds_per_1000_pairs=1000 * used / max(pairs, 1),
        memory_mb=server.memory_mb(),
    )


def put_load(server: Address, load: Load, question: Question, *, use_wrk: bool = True) -> dict[str, float]:
    """Run a load generator; return its report. Raises RuntimeError."""
    first = next(_first_seeds) if question.first is None else question.first
    if use_wrk and WRK is not None and load.rate is None:
        command = [str(WRK), "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--timeout", "30s"]
        command += ["-s", str(SCRIPT), server.url, "--", question.method, question.path, question.body]
        command += [question.etag, str(first), str(question.seeds)]
        plan = ""
    else:
        command = [sys.executable, "-m", "tests.benchmarks.serving.client"]
        plan = json.dumps(asdict(question) | asdict(load) | {"first": first, "port": server.port})
    done = subprocess.run(
        command, input=plan, cwd=ROOT, capture_output=True, text=True, timeout=load.seconds + GRACE_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-1000:]}")
    report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return report
