"""One server process: its addresses, how it starts, drains and reloads, and clients that leave."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from service.app import create_app
from service.errors import SettingsError
from service.server import Server, bind_addresses, hold_ports, url
from service.settings import Settings
from tests.running import START, Service, serving, wait_until
from tests.service.conftest import add_junk

Start = Callable[..., Service]


def has_ipv6() -> bool:
    """Return whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def says(message: str, line: dict[str, Any]) -> bool:
    """Return whether a log line begins so."""
    return str(line["message"]).startswith(message)


# Addresses


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what closes sockets."""
    with ExitStack() as stack:
        yield stack


def test_a_name_has_all_its_addresses_at_one_port(stack: ExitStack) -> None:
    """A free port is the same for IPv4 and IPv6, and no other service can have it."""
    bound = [stack.enter_context(one) for one in bind_addresses("localhost", 0, "COGAN_PORT", exclusive=True)]
    ports = {one.getsockname()[1] for one in bound}
    assert len(ports) == 1
    for exclusive in (True, False):
        with pytest.raises(SettingsError, match=r"COGAN_HOST = 'localhost', COGAN_PORT = \d+: .*in use"):
            bind_addresses("localhost", next(iter(ports)), "COGAN_PORT", exclusive)


def test_a_held_port_is_for_this_service_only(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any process listens, another service is refused, by the variable that named the port."""
    ports, held = hold_ports(Settings(port=0, health_port=0))
    port, _ = (stack.enter_context(one).getsockname()[1] for one in held)
    assert ports.keys() == {"COGAN_PORT", "COGAN_HEALTH_PORT"}
    assert ports["COGAN_PORT"] == str(port)
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(SettingsError, match=f"COGAN_PORT = {port}: .*in use"):
            hold_ports(Settings(host=host, port=port))
    with monkeypatch.context() as set_by_platform:
        set_by_platform.setenv("PORT", str(port))
        with pytest.raises(SettingsError, match=f", PORT = {port}: .*in use"):
            hold_ports(Settings(host="127.0.0.1"))
    for _ in range(2):
        (one,) = bind_addresses("127.0.0.1", port, "COGAN_PORT", exclusive=False)
        stack.enter_context(one).listen()


def test_a_port_of_closed_connections_is_free(stack: ExitStack) -> None:
    """A service that is started again at once gets its port, although connections of the old one linger."""
    (old,) = bind_addresses("127.0.0.1", 0, "COGAN_PORT", exclusive=False)
    old.listen()
    with old, socket.create_connection(old.getsockname()) as client:
        accepted, _ = old.accept()
        accepted.close()  # first, so that this side lingers
        assert client.recv(1) == b""
        port = old.getsockname()[1]
    for one in hold_ports(Settings(port=port))[1]:
        stack.enter_context(one)


def test_an_unknown_host_is_named() -> None:
    """What cannot be resolved is reported with the setting, not as a traceback."""
    with pytest.raises(SettingsError, match=r"COGAN_HOST = 'no\.such\.host\.invalid', COGAN_HEALTH_PORT = 1"):
        bind_addresses("no.such.host.invalid", 1, "COGAN_HEALTH_PORT", exclusive=True)


@pytest.mark.parametrize("host", ["http://127.0.0.1", "127.0.0.1:18210", "unix:/tmp/x", "", "a..b"])
def test_what_is_no_host_is_told_what_is(host: str) -> None:
    """A URL, a port and a path are not part of a host."""
    with pytest.raises(SettingsError, match=r"without scheme and port, such as 127\.0\.0\.1"):
        bind_addresses(host, 0, "COGAN_PORT", exclusive=True)


def test_an_address_is_written_as_browsers_read_it() -> None:
    """IPv6 stands in brackets."""
    assert url(("::1", 8000, 0, 0)) == "http://[::1]:8000"
    assert url(("127.0.0.1", 8000)) == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["localhost", "127.0.0.1"]),
        pytest.param("::", ["127.0.0.1", "[::1]"], marks=needs_ipv6),
        pytest.param("::1", ["[::1]"], marks=needs_ipv6),
        pytest.param("[::1]", ["[::1]"], marks=needs_ipv6),
        pytest.param("[::]", ["127.0.0.1", "[::1]"], marks=needs_ipv6),
    ],
)
@pytest.mark.anyio
async def test_it_answers_at_every_address_of_its_host(
    tiny_model: Callable[..., Path], models_dir: Path, host: str, reached: list[str]
) -> None:
    """`::` is IPv4 as well, whatever the machine's default is; brackets are allowed as in URLs."""
    tiny_model()
    async with serving(models_dir, host=host) as server, httpx.AsyncClient() as client:
        for one in reached:
            assert (await client.get(f"http://{one}:{server.port}/livez")).status_code == 200


# Starting and reloading


def test_the_start_logs_where_and_what(tiny_model: Callable[..., Path], start: Start) -> None:
    """One line has the address and the models; then it answers."""
    tiny_model()
    service = start()
    line = service.wait_for(lambda line: "url" in line)
    assert (line["models"], line["level"]) == (["tiny"], "info")
    assert httpx.get(f"{service.url}/generate?seed=7").status_code == 200


def test_sighup_loads_the_models_again(tiny_model: Callable[..., Path], start: Start, models_dir: Path) -> None:
    """A new version is served without a restart, and a broken one after it changes nothing."""
    tiny_model()
    service = start()
    for version, served in (("2", "2"), ("3", "2")):
        if version == served:
            tiny_model(version=version)
        else:
            add_junk(models_dir, version)
        message = f"model {'served' if version == served else 'refused'}: tiny/{version}"
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(partial(says, message))
        assert httpx.get(f"{service.url}/generate?seed=7").json()["version"] == served


@pytest.mark.anyio
async def test_the_health_port_has_health_only(
    tiny_model: Callable[..., Path], models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is another port of the same process, which the first then does not have, and needs no key."""
    caplog.set_level(logging.INFO, "cogan.server")
    tiny_model()
    key = {"x-api-key": "secret-secret-secret"}
    async with serving(models_dir, health_port=0, api_keys=key["x-api-key"]) as server, httpx.AsyncClient() as client:
        async with asyncio.timeout(START):
            while not (urls := [vars(record)["health_url"] for record in caplog.records if "url" in vars(record)]):
                await asyncio.sleep(0.01)
        service, health = f"http://127.0.0.1:{server.port}", urls[0]
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(f"{health}{path}")).status_code == 200
        assert (await client.get(f"{service}/readyz", headers=key)).status_code == 404
        assert (await client.get(f"{health}/models", headers=key)).status_code == 404
        assert (await client.get(f"{service}/models", headers=key)).status_code == 200


# Shutting down


def is_unready(service: Service) -> bool:
    """Return whether a service says that it is not ready."""
    return httpx.get(f"{service.url}/readyz", timeout=START).status_code == 503


def test_sigterm_drains(tiny_model: Callable[..., Path], start: Start) -> None:
    """Readiness fails first; what is sent before or during the delay is answered; then it exits with 0."""
    tiny_model(turns=200_000)
    service = start(drain_delay_s=6, threads=1, max_batch=1, cache_bytes=0, deadline_s=30)
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(httpx.get, f"{service.url}/generate?seed={i}", timeout=30) for i in range(3)]
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_unready(service))
        ready = httpx.get(f"{service.url}/readyz")
        late = httpx.get(f"{service.url}/generate?seed=9", timeout=30)
        assert [answer.result().status_code for answer in accepted] == [200] * 3
    assert (ready.status_code, ready.headers["connection"]) == (503, "close")
    assert "shutting down" in ready.json()["detail"]
    assert late.status_code == 200
    assert service.process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/livez")


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]]
)
def test_ctrl_c_or_a_second_signal_skips_the_delay(
    tiny_model: Callable[..., Path], start: Start, numbers: list[int]
) -> None:
    """A person at a terminal does not wait for a load balancer."""
    tiny_model()
    service = start(drain_delay_s=60)
    for number in numbers[:-1]:
        service.process.send_signal(number)
        wait_until(lambda: is_unready(service))  # or two signals become one
    service.process.send_signal(numbers[-1])
    assert service.process.wait(15) == 0


def test_connections_in_the_queue_are_answered(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A connection that waits to be accepted when the server shuts down is answered, where closing would reset it."""
    tiny_model()

    async def shut_down_with_waiting_clients() -> list[bytes]:
        with ExitStack() as stack:
            async with serving(models_dir) as server:
                address = ("127.0.0.1", server.port)
                clients = [stack.enter_context(socket.create_connection(address)) for _ in range(40)]
                for client in clients:
                    client.sendall(b"GET /generate?seed=7 HTTP/1.1\r\nHost: x\r\n\r\n")
                server.should_exit = True
                time.sleep(0.2)  # the loop accepts none before it sees that it is to stop
            return [client.recv(12) for client in clients]

    assert uvloop.run(shut_down_with_waiting_clients()) == [b"HTTP/1.1 200"] * 40


@pytest.mark.anyio
async def test_a_request_that_outlasts_the_grace_period_is_503(
    tiny_model: Callable[..., Path], models_dir: Path, held: Callable[[], threading.Event]
) -> None:
    """A request that still runs when the grace period ends gets that answer, with Retry-After."""
    tiny_model()
    settings = Settings(models_dir=models_dir, port=0, threads=1, processes=1)
    app = create_app(settings)
    server = Server(app, settings)
    held()
    server.config.timeout_graceful_shutdown = 0
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=START) as client:
        asking = asyncio.create_task(client.get("/generate?seed=7"))
        async with asyncio.timeout(START):
            while not app.state.registry.busy:
                await asyncio.sleep(0.01)
        server.should_exit = True
        answer = await asking
    await running
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "5"
    assert "stopped before" in answer.json()["detail"]


# Clients that leave


def test_nothing_is_computed_for_clients_that_left(tiny_model: Callable[..., Path], start: Start) -> None:
    """Of twenty clients that close their sockets at once, those still waiting cost no run."""
    tiny_model(turns=600_000)
    service = start(threads=1, max_batch=1)
    clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(20)]
    for i, client in enumerate(clients):
        client.sendall(f"GET /generate?seed={i} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    time.sleep(0.3)
    for client in clients:
        client.close()
    service.wait_for(lambda _: sum("status" in line for line in service.lines) == 20)
    answered = [line for line in service.lines if line.get("status") == 200]  # before the sockets closed
    assert sum(line.get("status") == 499 for line in service.lines) == 20 - len(answered)
    assert httpx.get(f"{service.url}/generate?seed=100", timeout=30).status_code == 200
    text = httpx.get(f"{service.url}/metrics").text
    assert 'cogan_queue_depth{model="tiny"} 0.0' in text
    assert "cogan_requests_in_flight 1.0" in text
    computed = next(line for line in text.splitlines() if line.startswith("cogan_samples_total"))
    assert len(answered) < float(computed.split()[-1]) <= 8  # of 21
