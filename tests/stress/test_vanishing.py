"""Clients that vanish as soon as they have asked leave nothing behind, and nothing is computed for them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.running import Service
from tests.stress.conftest import PROCESSES
from tests.stress.forms import forms
from tests.stress.gauges import IDLE, read, settled

LATENTS = 512  # of a patient client, each a run: more than all processes compute meanwhile
LEFT = "cogan_http_requests_total 499"
ASK = b"GET /generate?seed=%d&count=%d HTTP/1.1\r\nHost: x\r\n\r\n"
ASK_IN_PART = b'POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"seed":%d'
RESET = struct.pack("ii", 1, 0)  # to linger for no time: close() resets


def vanish(port: int, number: int) -> None:
    """Connect, ask, and leave: by turns in good order, by a reset, and within the request."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        if number % 3 == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.sendall(ASK_IN_PART % number if number % 3 == 2 else ASK % (number, 3))


def one_each(service: Service, stack: ExitStack) -> list[socket.socket]:
    """Return a connection to each process."""
    found: dict[int, socket.socket] = {}
    while len(found) < PROCESSES:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        found.setdefault(service.owner(client), client)
    return list(found.values())


def storm(service: Service, clients: int) -> float:
    """Let clients vanish behind patient ones, who have every worker; return how many were computed."""
    before = read(service.url)
    with ExitStack() as patient:
        for client in one_each(service, patient):
            client.sendall(ASK % (1, LATENTS))
        in_flight = {"cogan_requests_in_flight": PROCESSES + 1}
        settled(service.url, in_flight)
        for number in range(clients):
            vanish(service.port, number)
        gone = before.get(LEFT, 0) + clients
        settled(service.url, in_flight | {LEFT: gone})
    after = settled(service.url, IDLE | {LEFT: gone + PROCESSES})
    return after["cogan_samples_total"] - before.get("cogan_samples_total", 0)


@pytest.mark.parametrize(("clients", "rounds"), forms((300, 1), (999, 20)))
def test_clients_that_vanish_leave_nothing(
    tiny_model: Callable[..., Path], start: Callable[..., Service], clients: int, rounds: int
) -> None:
    """Nothing is computed for them, and the files and the memory of a first round serve all others."""
    tiny_model(turns=100_000)
    service = start(threads=1, max_batch=1, max_pairs=LATENTS, max_queue=5 * clients, deadline_s=300)
    computed = [storm(service, clients)]
    first = read(service.url)
    computed += [storm(service, clients) for _ in range(rounds)]
    assert max(computed) < LATENTS, computed  # each patient client, who left last, was first in its queue
    files = {"process_open_fds": first["process_open_fds"]}
    last = settled(service.url, IDLE | files)
    resident = [metrics["process_resident_memory_bytes"] for metrics in (first, last)]
    assert resident[1] <= 1.05 * resident[0], resident
    print(computed, resident, files)
