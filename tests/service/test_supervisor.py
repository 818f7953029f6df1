"""Several real processes behind one port: one is lost or hangs, and the service goes on."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engine.models import LOOK_EVERY_S
from service.supervisor import MAX_UNANSWERED, PING_EVERY_S
from tests.conftest import write_model
from tests.running import ALONE, START, Service, has_ended, killed, services, sockets_of, tcp_at, wait_until
from tests.service.conftest import add_junk

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")
Start = Callable[..., Service]
REQUEST = b"GET /generate?seed=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HUNG_S = 8.0  # by then one that hangs takes no new connections
BLOCKER = """
import os, signal, time
def block(*_):
    time.sleep(float(open(os.environ["BLOCK_S_FILE"]).read()))
signal.signal(signal.SIGUSR1, block)
"""  # as `sitecustomize`: the main thread, which runs the event loop, sleeps; all other threads go on


def metric(service: Service, name: str) -> float:
    """Return the sum of a metric's samples."""
    families = text_string_to_metric_families(httpx.get(f"{service.url}/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def says(message: str, line: dict[str, Any]) -> bool:
    """Return whether a log line begins so."""
    return str(line["message"]).startswith(message)


def connection(service: Service) -> socket.socket:
    """Return a new connection to a service."""
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def seconds_to_answer(service: Service) -> float:
    """Return how long a request over a new connection takes; inf if it gets no image."""
    start = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
            client.sendall(REQUEST)
            answered = client.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return math.inf
    return time.monotonic() - start if answered else math.inf


def answered_of_40(service: Service) -> int:
    """Return how many of 40 requests over new connections are answered, after a check that it takes no second."""
    seconds = [seconds_to_answer(service) for _ in range(40)]
    print(seconds)
    assert sum(one < 1 for one in seconds) >= 36  # a busy machine halts a process now and then
    return sum(one < math.inf for one in seconds)


def are_unready(service: Service) -> bool:
    """Return whether all processes say that they are not ready, as far as new connections reach them."""
    return {httpx.get(f"{service.url}/readyz", timeout=START).status_code for _ in range(8)} == {503}


@contextmanager
def clients(service: Service, pids: list[int]) -> Iterator[list[httpx.Client]]:
    """Give a client for each of these processes, whose connection it has."""
    with ExitStack() as stack:
        found: dict[int, httpx.Client] = {}
        while not found.keys() >= set(pids):
            client = stack.enter_context(httpx.Client(base_url=service.url, timeout=30))
            assert client.get("/livez").status_code == 200
            stream = client._transport._pool.connections[0]._connection._network_stream  # type: ignore[attr-defined]
            found[service.owner(stream.get_extra_info("socket"))] = client
        yield [found[pid] for pid in pids]


@pytest.fixture
def pair(tiny_model: Callable[..., Path], start: Start) -> Start:
    """Return what starts a service of two processes."""
    tiny_model()
    return lambda **settings: start(processes=2, threads=1, **settings)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service of two processes without a response cache, for tests that only send requests."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    with services(folder) as start:
        yield start(processes=2, threads=1, cache_bytes=0)


@pytest.fixture
def block(tmp_path: Path) -> tuple[dict[str, str], Callable[[int, float], None]]:
    """Return the environment of a service whose event loops can be blocked, and what blocks one for some seconds."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)

    def block(pid: int, seconds: float) -> None:
        (folder / "seconds").write_text(str(seconds))
        os.kill(pid, signal.SIGUSR1)

    return {"PYTHONPATH": str(folder), "BLOCK_S_FILE": str(folder / "seconds")}, block


# One service


def test_both_answer_alike_and_count_as_one(lasting: Service) -> None:
    """Bytes do not depend on the process; metrics and statistics are of both."""
    before = metric(lasting, "cogan_samples_total")
    with clients(lasting, lasting.children) as connections:
        bodies = [[one.get(f"/generate?seed={seed}").content for seed in range(3)] for one in connections]
        assert bodies == [bodies[0]] * 2
        counts = [partial(one.get, "/v2/models/tiny/stats") for one in connections]
        for count in counts:  # a process counts when its response is on its way
            wait_until(partial(lambda of: of().json()["model_stats"][0]["inference_count"] == before + 6, count))
    assert metric(lasting, "cogan_samples_total") == before + 6
    assert metric(lasting, "cogan_processes") == 2


def test_connections_are_spread(lasting: Service) -> None:
    """Of 32 connections each process has several; the supervisor has none, and does not listen."""
    assert len({line["url"] for line in lasting.lines if "url" in line}) == 1  # port 0 is one port for both
    with ExitStack() as stack:
        owners = Counter(lasting.owner(stack.enter_context(connection(lasting))) for _ in range(32))
        assert set(owners) == set(lasting.children)
        assert min(owners.values()) >= 4  # by chance less once in 100,000
        assert sockets_of(lasting.process.pid) & tcp_at(lasting.port).keys() == set()


def test_both_processes_work(lasting: Service) -> None:
    """Under load each process uses the processor."""

    def send(number: int) -> None:
        with httpx.Client(base_url=lasting.url, timeout=30) as client:
            for i in range(20):
                assert client.get(f"/generate?seed={number * 20 + i}").status_code == 200

    before = [cpu_ticks(pid) for pid in lasting.children]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(send, range(32)))
    used = [now - then for now, then in zip([cpu_ticks(pid) for pid in lasting.children], before, strict=True)]
    assert min(used) > 0.1 * sum(used)


def cpu_ticks(pid: int) -> int:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_rate_limit_is_each_process_own(pair: Start) -> None:
    """What a client sends to one process does not count in the other."""
    service = pair(rate_limit=0.01, rate_burst=3)
    with clients(service, service.children) as connections:
        for one in connections:
            assert [one.get("/models").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_changes_of_the_models_folder_reach_both(
    pair: Start, tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """Both see a new version by themselves, and SIGHUP has both load everything again."""
    service = pair()
    with clients(service, service.children) as connections:

        def versions() -> list[Any]:
            return [one.get("/generate?seed=7").json()["version"] for one in connections]

        assert versions() == ["1", "1"]
        tiny_model(version="2")
        wait_until(lambda: versions() == ["2", "2"])
        add_junk(models_dir, "3")
        refused = "model refused: tiny/3"
        service.wait_for(partial(says, refused), times=2)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(partial(says, refused), times=4)
        assert versions() == ["2", "2"]


def test_models_loaded_and_unloaded_by_request_reach_both(pair: Start, tiny_model: Callable[..., Path]) -> None:
    """The process that is asked has done it when it answers, the other within a second, and one that replaces it."""
    service = pair(model_control=True)
    with clients(service, service.children) as (asked, other):
        assert asked.post("/v2/repository/models/tiny/unload").status_code == 200
        assert asked.get("/generate?seed=7").status_code == 503
        soon(lambda: other.get("/generate?seed=7").status_code == 503)
        os.kill(service.children[1], signal.SIGKILL)
        service.wait_for(lambda line: "url" in line, times=3)
    with clients(service, service.children) as (asked, other):
        assert [one.get("/generate?seed=7").status_code for one in (asked, other)] == [503, 503]
        tiny_model(version="2").write_bytes(b"junk")
        refused = other.post("/v2/repository/models/tiny/load")
        assert (refused.status_code, refused.json()["code"]) == (422, "load_refused")
        assert "version 1 is served" in refused.json()["detail"]
        tiny_model(version="3")
        assert other.post("/v2/repository/models/tiny/load").json()["version"] == "3"
        assert other.get("/generate?seed=7").json()["version"] == "3"
        soon(lambda: asked.get("/generate?seed=7").json().get("version") == "3")


def soon(true: Callable[[], bool]) -> None:
    """Check that something becomes true within a second, and what a busy machine adds to it."""
    assert LOOK_EVERY_S <= 0.5
    start = time.monotonic()
    wait_until(true)
    assert time.monotonic() - start < 10


def test_the_health_port_is_shared_like_the_other(tiny_model: Callable[..., Path], start: Start) -> None:
    """Whichever process is asked there answers, with the metrics of both; port 0 is one port for both."""
    tiny_model()
    service = start(processes=2, threads=1, health_port=0)
    (url,) = {line["health_url"] for line in service.lines if "health_url" in line}
    for _ in range(8):
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "cogan_processes 2.0" in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{service.url}/readyz").status_code == 404


# One that is lost or hangs


def test_one_that_is_killed_is_replaced(pair: Start) -> None:
    """All connections opened after a kill are answered, within a second; soon there are two processes again."""
    service = pair()
    assert answered_of_40(service) == 40
    (killed, other), start = service.children, time.monotonic()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: has_ended(killed))
    assert answered_of_40(service) == 40
    service.wait_for(lambda line: "url" in line, times=3)
    print(f"replaced after {time.monotonic() - start:.1f} s")
    assert other in service.children
    assert len(service.children) == 2
    assert answered_of_40(service) == 40
    line = service.wait_for(partial(says, f"process {killed} exited with status -9"))
    assert line["level"] == "error"


def test_requests_of_a_killed_process_stay_counted(pair: Start) -> None:
    """A scrape never falls: counters of one that is gone are kept, what it had in flight is not."""
    service = pair(cache_bytes=0)
    for seed in range(8):
        httpx.get(f"{service.url}/generate?seed={seed}")
    wait_until(lambda: metric(service, "cogan_samples_total") == 8)  # they are counted behind the response
    os.kill(service.children[0], signal.SIGKILL)
    service.wait_for(lambda line: "url" in line, times=3)
    assert metric(service, "cogan_samples_total") == 8
    wait_until(lambda: metric(service, "cogan_requests_in_flight") == 1)
    assert metric(service, "cogan_processes") == 2


@pytest.mark.parametrize("way", ["stopped", "blocked"])
def test_one_that_hangs_is_replaced(
    pair: Start, block: tuple[dict[str, str], Callable[[int, float], None]], way: str
) -> None:
    """From 8 s on all connections are answered, whether its process or only its event loop has stopped."""
    environment, block_loop = block
    service = pair(environment=environment)
    hung, start = service.children[0], time.monotonic()
    if way == "stopped":
        os.kill(hung, signal.SIGSTOP)
    else:
        block_loop(hung, 3600)
    wait_until(lambda: has_ended(hung))
    took = time.monotonic() - start
    assert (MAX_UNANSWERED + 1) * (PING_EVERY_S + 0.1) < HUNG_S
    assert took < 2 * HUNG_S  # on a busy machine
    assert answered_of_40(service) == 40
    service.wait_for(lambda line: "url" in line, times=3)
    print(f"{way}: killed after {took:.1f} s, replaced after {time.monotonic() - start:.1f} s")
    assert len(service.children) == 2
    service.wait_for(partial(says, f"process {hung} hangs"))


def test_one_that_is_busy_for_seconds_is_kept(
    pair: Start, block: tuple[dict[str, str], Callable[[int, float], None]]
) -> None:
    """A pause that ends is no reason to lose what a process is doing."""
    environment, block_loop = block
    service = pair(environment=environment)
    before = service.children
    block_loop(before[0], 3.0)
    time.sleep(7)
    assert service.children == before
    assert answered_of_40(service) == 40


IMPATIENT = """
import signal
import service.supervisor
from service.__main__ import main

def limit(number, _):
    service.supervisor.MAX_UNREADY = 2 if number == signal.SIGUSR1 else 600

signal.signal(signal.SIGUSR1, limit)
signal.signal(signal.SIGUSR2, limit)
main()
"""  # a supervisor that can be told how long a process may take to start


def test_one_that_hangs_before_it_is_ready_is_replaced(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Its event loop cannot answer yet: it has a longer time, and then another takes its place."""
    tiny_model(turns=1_000_000)  # a second or so, for the warm-up
    variables = ALONE | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PROCESSES": "2"}
    command, lines = [sys.executable, "-c", IMPATIENT], list[dict[str, Any]]()
    with killed(subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True)) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2)
        hung = int(children.read_text().split()[0])
        os.kill(hung, signal.SIGSTOP)
        hangs = partial(says, f"process {hung} hangs and is replaced")
        for number, shown in ((signal.SIGUSR1, lambda line: "url" in line), (signal.SIGUSR2, hangs)):
            while not any(map(shown, lines)):
                lines.append(read_line(process))
            process.send_signal(number)
        while sum("url" in line for line in lines) < 2:
            lines.append(read_line(process))
        process.terminate()
        process.communicate(timeout=START)
    assert process.returncode == 0


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next log line of a service."""
    assert process.stderr is not None
    line: dict[str, Any] = json.loads(process.stderr.readline())
    return line


def test_a_pause_of_the_whole_service_is_no_hang(pair: Start) -> None:
    """`docker pause` stops all processes, and none is killed afterwards for not having answered."""
    service = pair()
    pids = [service.process.pid, *service.children]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            os.kill(pid, number)
        time.sleep(8)
    assert [service.process.pid, *service.children] == pids
    assert answered_of_40(service) == 40


def test_crash_loops_are_delayed(pair: Start) -> None:
    """One that ends soon after its start is replaced after a delay, which doubles."""
    service, delays = pair(), list[float]()
    for _ in range(3):
        newest = service.children[-1]
        start = time.monotonic()
        os.kill(newest, signal.SIGKILL)
        line = service.wait_for(partial(says, f"process {newest} exited with status -9; replaced in "))
        delays.append(float(line["message"].split()[-2]))
        wait_until(lambda: len(service.children) == 2)
        assert time.monotonic() - start > delays[-1]
    assert delays in ([1, 2, 4], [0, 1, 2])  # 0 if the start of both took long


def test_without_the_supervisor_the_processes_stop(pair: Start) -> None:
    """No process is left that holds the port; what was accepted is answered first."""
    service = pair()
    pids = service.children
    with clients(service, pids) as connections:
        service.process.kill()
        service.process.wait()
        wait_until(lambda: all(map(has_ended, pids)))
        del connections
    with pytest.raises(ConnectionRefusedError):
        connection(service)


# Shutting down


@pytest.mark.parametrize("told", ["supervisor", "all"])
def test_both_drain(pair: Start, told: str) -> None:
    """Both are unready at once and answer all they accept; so too if all are told, as systemd does."""
    service = pair(drain_delay_s=10, cache_bytes=0)
    pids = service.children
    with clients(service, pids) as connections:
        for pid in (service.process.pid, *(pids if told == "all" else ())):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: are_unready(service))
        for path in ("/readyz", "/v2/models/tiny/ready"):
            for _ in range(4):
                assert httpx.get(f"{service.url}{path}").status_code == 503
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert [one.get("/generate?seed=1").status_code for one in connections] == [200, 200]
        assert [httpx.get(f"{service.url}/generate?seed=2").status_code for _ in range(4)] == [200] * 4
    assert service.process.wait(START) == 0
    assert all(map(has_ended, pids))


def test_no_connection_is_reset_by_a_shutdown(
    pair: Start, block: tuple[dict[str, str], Callable[[int, float], None]]
) -> None:
    """What waits in the queues of both when SIGTERM arrives is accepted and answered before they stop listening."""
    environment, block_loop = block
    service = pair(environment=environment)
    for pid in service.children:
        block_loop(pid, 1.5)  # so that no connection is accepted before the signal
    time.sleep(0.2)
    with ExitStack() as stack:
        waiting = [stack.enter_context(connection(service)) for _ in range(40)]
        for client in waiting:
            client.sendall(REQUEST)
        service.process.send_signal(signal.SIGTERM)
        assert [client.recv(12) for client in waiting] == [b"HTTP/1.1 200"] * 40
    assert service.process.wait(START) == 0


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]]
)
def test_ctrl_c_or_a_second_signal_skips_the_delay(pair: Start, numbers: list[int]) -> None:
    """A person at a terminal does not wait for a load balancer."""
    service = pair(drain_delay_s=60)
    for number in numbers[:-1]:
        service.process.send_signal(number)
        wait_until(lambda: are_unready(service))  # or two signals become one
    service.process.send_signal(numbers[-1])
    assert service.process.wait(15) == 0


UNREAD = """
import os, socket, subprocess, sys, time

ours, theirs = socket.socketpair()
command = [sys.executable, "-m", "service", "--child", str(theirs.fileno()), sys.argv[1]]
child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
theirs.close()
print(child.pid, ours.recv(1).decode(), flush=True)
ours.send(b"?")
while not ours.recv(1, socket.MSG_PEEK):
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


def test_a_process_ends_with_a_supervisor_that_has_not_read_its_answer(
    tiny_model: Callable[..., Path], models_dir: Path, tmp_path: Path
) -> None:
    """The socket then has an error in place of an end, and the process would serve on as an orphan."""
    tiny_model()
    environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": "0", "COGAN_HOST": "127.0.0.1"}
    command = [sys.executable, "-c", UNREAD, str(tmp_path)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=START, check=False)
    pid, ready = done.stdout.split()
    try:
        assert ready == "r"
        wait_until(lambda: has_ended(int(pid)))
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
