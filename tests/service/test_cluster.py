"""A service of several real processes behind one port is one service."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import START, Service

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for processes")
Start = Callable[..., Service]


def metric(service: Service, name: str) -> float:
    """Return the sum of a metric's samples."""
    families = text_string_to_metric_families(httpx.get(f"{service.url}/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def others(service: Service) -> list[int]:
    """Return the processes that the first has begun."""
    pid = service.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + START
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Say whether a process is no more."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@contextmanager
def clients(service: Service, count: int) -> Iterator[list[httpx.Client]]:
    """Give so many connections, each of which some process has."""
    with ExitStack() as stack:
        yield [stack.enter_context(httpx.Client(base_url=service.url, timeout=30)) for _ in range(count)]


@pytest.fixture
def pair(tiny_model: Callable[..., Path], start: Start) -> Callable[..., Service]:
    """Return what starts a service of two processes, and waits for both."""
    tiny_model()

    def start_pair(**settings: Any) -> Service:
        service = start(processes=2, threads=1, **settings)
        wait_until(lambda: metric(service, "cogan_processes") == 2)
        return service

    return start_pair


def test_both_answer_alike_and_count_as_one(pair: Callable[..., Service]) -> None:
    """Connections go round; bytes do not depend on who answers; metrics and statistics are of all."""
    service = pair(cache_bytes=0)
    with clients(service, 4) as connections:
        bodies = [[one.get(f"/generate?seed={seed}").content for seed in range(3)] for one in connections]
        assert bodies == [bodies[0]] * 4
        for one in connections:
            assert one.get("/v2/models/tiny/stats").json()["model_stats"][0]["inference_count"] == 12
    assert metric(service, "cogan_samples_total") == 12


def test_a_change_of_models_reaches_both(
    pair: Callable[..., Service], tiny_model: Callable[..., Path]
) -> None:
    """Load, SIGHUP and unload, whoever is asked; what is refused changes nothing in any."""
    service = pair()

    def versions(connections: list[httpx.Client]) -> list[Any]:
        answers = [one.get("/generate?seed=7") for one in connections]
        return [answer.json().get("version", answer.status_code) for answer in answers]

    with clients(service, 2) as connections:
        assert versions(connections) == ["1", "1"]
        for asked, version in zip(connections, ("2", "3"), strict=True):
            tiny_model(version=version)
            assert asked.post("/v2/repository/models/tiny/load").json()["version"] == version
            assert versions(connections) == [version] * 2
        tiny_model(version="4")
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: versions(connections) == ["4", "4"])
        tiny_model(version="5").write_bytes(b"junk")
        refused = connections[1].post("/v2/repository/models/tiny/load")
        assert (refused.status_code, refused.json()["code"]) == (422, "load_refused")
        assert "version 4 is served" in refused.json()["detail"]
        assert connections[1].post("/v2/repository/models/tiny/unload").status_code == 200
        assert versions(connections) == [503, 503]


def test_a_version_that_comes_during_the_start_is_served_by_both(
    tiny_model: Callable[..., Path], start: Start
) -> None:
    """The second process opens the folder later than the first, which then looks again."""
    tiny_model(version="1")
    service = start(processes=2, threads=1)
    tiny_model(version="2")
    wait_until(lambda: metric(service, "cogan_processes") == 2)
    with clients(service, 4) as connections:

        def versions() -> set[str]:
            return {one.get("/v2/models/tiny").json()["versions"][0] for one in connections}

        wait_until(lambda: versions() == {"2"})


def test_the_rate_limit_is_one_for_both(pair: Callable[..., Service]) -> None:
    """Who asks over two connections gets no more than over one."""
    service = pair(rate_limit=0.01, rate_burst=3)
    with clients(service, 2) as connections:
        statuses = [one.get("/models").status_code for _ in range(3) for one in connections]
    assert statuses == [200] * 3 + [429] * 3


def test_both_drain(tiny_model: Callable[..., Path], pair: Callable[..., Service]) -> None:
    """On SIGTERM each process is not ready at once, what was accepted is answered, and all end with 0."""
    service = pair(drain_delay_s=4, max_batch=1, cache_bytes=0)
    tiny_model(version="2", turns=200_000)
    httpx.post(f"{service.url}/v2/repository/models/tiny/load", timeout=30)
    pids = others(service)
    with clients(service, 4) as connections, ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(one.get, f"/generate?seed={i}") for i, one in enumerate(connections)]
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with clients(service, 2) as late:
            for path in ("/readyz", "/v2/models/tiny/ready"):
                assert [one.get(path).status_code for one in late] == [503, 503]
            assert [one.get("/livez").status_code for one in late] == [200, 200]
        assert [answer.result().status_code for answer in accepted] == [200] * 4
    assert service.process.wait(START) == 0
    assert all(has_ended(pid) for pid in pids)


def test_all_may_be_told_at_once(pair: Callable[..., Service]) -> None:
    """Who sends SIGTERM to every process, as systemd does, cuts no connection short of the delay."""
    service = pair(drain_delay_s=2, cache_bytes=0)
    (pid,) = others(service)
    with clients(service, 2) as connections:
        for one in (service.process.pid, pid):
            os.kill(one, signal.SIGTERM)
        assert [one.get("/generate?seed=1").status_code for one in connections] == [200, 200]
        with clients(service, 2) as late:
            for path in ("/readyz", "/v2/models/tiny/ready"):
                assert [one.get(path).status_code for one in late] == [503, 503]
            assert [one.get("/generate?seed=2").status_code for one in late] == [200, 200]
    assert service.process.wait(START) == 0
    assert has_ended(pid)


def test_the_health_port_is_the_first_process_alone(tiny_model: Callable[..., Path], start: Start) -> None:
    """Its address is taken once, and tells of both."""
    tiny_model()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = start(processes=2, threads=1, health_port=port)
    scrape = f"http://127.0.0.1:{port}/metrics"
    wait_until(lambda: "cogan_processes 2.0" in httpx.get(scrape).text)
    assert service.process.poll() is None


def test_one_that_is_lost_ends_the_service(pair: Callable[..., Service]) -> None:
    """Killed from outside, it is named in the log; the first ends, with status 1, and can be begun anew."""
    service = pair()
    os.kill(others(service)[0], signal.SIGKILL)
    line = service.wait_for(lambda line: "the service ends" in str(line["message"]))
    assert (line["level"], "ended with status -9" in line["message"]) == ("error", True)
    assert service.process.wait(START) == 1


def test_without_the_first_the_others_end(pair: Callable[..., Service]) -> None:
    """Nobody is left behind who holds memory and takes no requests."""
    service = pair()
    (pid,) = others(service)
    service.process.kill()
    wait_until(partial(has_ended, pid))


def test_one_that_hangs_is_told_by_the_other(pair: Callable[..., Service]) -> None:
    """/livez asks all, and a scrape that would lack the counts of one fails instead of falling."""
    service = pair(stuck_after_s=1)
    with clients(service, 2) as connections, ThreadPoolExecutor(2) as pool:
        for one in connections:
            assert one.get("/livez").status_code == 200
        (pid,) = others(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = [pool.submit(one.get, "/livez") for one in connections]
            wait_until(lambda: any(answer.done() for answer in asked))
            assert sum(answer.done() for answer in asked) == 1  # the other one's process is halted
            mine = connections[[answer.done() for answer in asked].index(True)]
            answers = [mine.get(path) for path in ("/livez", "/metrics")]
        finally:
            os.kill(pid, signal.SIGCONT)
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "stuck")
            assert re.fullmatch(r"process 2 has not answered for \d+ s", answer.json()["detail"])
        assert [one.get("/livez").status_code for one in connections] == [200, 200]
