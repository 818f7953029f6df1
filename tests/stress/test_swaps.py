"""Versions come and go under load, some of them broken, and no request fails or gets a mixture."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.engine.onnx_model import file_digest
from tests.running import Service
from tests.stress.conftest import PROCESSES
from tests.stress.forms import forms

DOMAINS = ("digit", "edge", "ink")
DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda whole: whole[: len(whole) // 2],
    lambda whole: whole.replace(b'"tiny"', b'"tony"'),
]
TURNS = 10_000  # in a run: some milliseconds
Seen = set[tuple[str, str, str]]  # version, digest, images


def ask(client: httpx.Client) -> tuple[str, str, str]:
    """Return the version, the digest and the images of an answer."""
    answer = client.get("/generate?seed=1&count=3")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["version"], body["digest"], json.dumps(body["pairs"])


@contextmanager
def asked(url: str, seen: Seen) -> Iterator[None]:
    """Ask the same in a loop over several connections, and note what is answered."""
    done = threading.Event()

    def ask_on() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                seen.add(ask(client))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_on) for _ in range(4)]
        try:
            yield
        finally:
            done.set()
            for future in asking:
                future.result()


def swap(service: Service, client: httpx.Client, version: int, broken: bool) -> None:
    """Have a version looked at, by SIGHUP or by request."""
    place, verdict = f"tiny/{version}", "refused" if broken else "served"
    if version % 2:
        service.process.send_signal(signal.SIGHUP)
        told = f"model {verdict}: {place}"
        service.wait_for(lambda line: str(line["message"]).startswith(told), times=PROCESSES)
    else:
        answer = client.post("/v2/repository/models/tiny/load")
        assert answer.status_code == (422 if broken else 200), answer.text


@pytest.mark.parametrize("swaps", forms((20,), (100,)))
def test_no_request_fails_while_versions_change(
    tiny_model: Callable[..., Path], start: Callable[..., Service], swaps: int
) -> None:
    """Each answer is that of one whole version, and what is asked after a swap has the version of then."""
    digests = {"1": file_digest(tiny_model(DOMAINS[:2], turns=TURNS).read_bytes())}
    service, seen = start(cache_bytes=0, threads=1, model_control=True), Seen()  # so that requests wait during a swap
    with httpx.Client(base_url=service.url, timeout=30) as client, asked(service.url, seen):
        after = {ask(client)}
        for version in range(2, swaps + 2):
            path = tiny_model(DOMAINS[: 2 + version // 2 % 2], version=str(version), turns=TURNS)
            if broken := version % 5 == 0:
                path.write_bytes(DAMAGES[version // 5 % len(DAMAGES)](path.read_bytes()))
            else:
                digests[str(version)] = file_digest(path.read_bytes())
            swap(service, client, version, broken)
            now = ask(client)
            assert now[:2] == list(digests.items())[-1]
            after.add(now)
    assert seen <= after
    assert len(seen) > swaps / 2  # it was asked during most of them
    assert len({images for _, _, images in seen}) == 2  # and they are not all alike
