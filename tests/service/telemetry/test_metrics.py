"""Metrics are those of one app, or of all processes of a service together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.multiprocess import mark_process_dead

from service.telemetry.metrics import MULTIPROCESS, Metrics, ServedModel
from tests.running import START

ROOT = Path(__file__).parents[3]
TINY = ServedModel("tiny", "1", "sha256:0", "cpu", 0.5)
MEMBER = """
import json, sys
from service.telemetry.metrics import Metrics, ServedModel
metrics = Metrics()
for line in sys.stdin:
    exec(line)
    print(json.dumps([[s.name, s.labels, s.value] for m in metrics.collect() for s in m.samples]), flush=True)
"""
Samples = dict[str, float]


def by_name(samples: list[Any]) -> Samples:
    """Return the values of samples by their names and label values."""
    found = {" ".join([name, *(labels[key] for key in sorted(labels))]): value for name, labels, value in samples}
    assert len(found) == len(samples)
    return found


def scrape(metrics: Metrics) -> Samples:
    """Return all samples of metrics."""
    return by_name([(s.name, s.labels, s.value) for metric in metrics.collect() for s in metric.samples])


class Member:
    """One process of a service, which runs lines of code with its metrics."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", MEMBER],
            cwd=ROOT,
            env=os.environ | {MULTIPROCESS: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = folder

    def run(self, code: str = "pass") -> Samples:
        """Run a line of code, and return what a scrape of this process says then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(code + "\n")
        self._process.stdin.flush()
        return by_name(json.loads(self._process.stdout.readline()))

    def die(self) -> None:
        """Kill the process and drop its gauges, as a supervisor does."""
        self._process.kill()
        self._process.communicate()
        mark_process_dead(self._process.pid, str(self._folder))  # type: ignore[no-untyped-call]


@pytest.fixture
def start_member(tmp_path: Path) -> Iterator[Callable[[], Member]]:
    """Return what starts a process of one service."""
    started = []

    def start() -> Member:
        started.append(Member(tmp_path))
        return started[-1]

    yield start
    for member in started:
        member.die()


def use(number: int) -> str:
    """Return code that counts something of every kind."""
    return (
        f"metrics.requests.labels('/generate', 'GET', 200).inc({number}); "
        f"metrics.requests.labels('/only{number}', 'GET', 200).inc(); "
        f"metrics.in_flight += {number}; metrics.watch_queue('tiny', lambda: {number}); "
        f"metrics.of_model('tiny', '1').ran({8 * number}, 0.5, 'cpu')"
    )


def cumulative(samples: Samples) -> Samples:
    """Return the samples that never fall while a service runs."""
    kinds = ("_total", "_count", "_sum", "_bucket")
    return {
        name: value
        for name, value in samples.items()
        if name.split()[0].endswith(kinds) and not name.startswith("process_")
    }


def test_metrics_of_one_app_are_its_own() -> None:
    """Two apps in one process, as in tests, count apart; what was never counted is 0 or missing."""
    first, second = Metrics(), Metrics()
    first.requests.labels("/generate", "GET", 200).inc()
    first.watch_queue("tiny", lambda: 3)
    assert scrape(first)["cogan_http_requests_total 200 GET /generate"] == 1
    assert scrape(first)["cogan_queue_depth tiny"] == 3
    assert not [name for name in scrape(second) if "/generate" in name or "tiny" in name]
    assert scrape(second)["cogan_rejected_total queue_full"] == scrape(second)["cogan_requests_in_flight"] == 0
    assert scrape(second)["cogan_processes"] == 1
    assert not [name for name in scrape(first) if "_created" in name]


def test_gauges_of_models_follow_what_is_served() -> None:
    """They are derived at each scrape, so that nothing is left of a model that is gone."""
    metrics, served, state = Metrics(), [TINY], {"refused": 1, "ready": True}
    metrics.watch_models(lambda: served, lambda: state["refused"], lambda: bool(state["ready"]))
    metrics.watch_queue("tiny", lambda: 2)
    found = scrape(metrics)
    assert found["cogan_model_info sha256:0 tiny cpu 1"] == found["cogan_models_refused"] == found["cogan_ready"] == 1
    assert found["cogan_model_load_seconds tiny"] == 0.5
    served.clear()
    state |= {"refused": 0, "ready": False}
    metrics.forget_model("tiny")
    found = scrape(metrics)
    assert not [name for name in found if "tiny" in name]
    assert found["cogan_models_refused"] == found["cogan_ready"] == 0


def test_a_model_that_is_forgotten_during_a_scrape_leaves_nothing() -> None:
    """Scrapes run in threads: a model may be unloaded while its queue is sampled."""
    metrics = Metrics()
    forgetting = threading.Thread(target=metrics.forget_model, args=("tiny",))

    def depth() -> int:
        forgetting.start()
        forgetting.join(0.2)
        return 3

    metrics.watch_queue("tiny", depth)
    scrape(metrics)
    forgetting.join()
    assert not [name for name in scrape(metrics) if "tiny" in name]


def test_processes_add_up(start_member: Callable[[], Member]) -> None:
    """Whichever process answers, counters, histograms and gauges are those of all; process_* are summed."""
    first = start_member()
    alone = first.run(use(1))
    assert alone["cogan_processes"] == 1
    second = start_member()
    second.run(use(2))
    for found in (first.run(), second.run()):
        assert found["cogan_http_requests_total 200 GET /generate"] == 3
        assert found["cogan_http_requests_total 200 GET /only1"] == 1
        assert found["cogan_http_requests_total 200 GET /only2"] == 1
        assert found["cogan_batch_size_bucket 8.0"] == 1
        assert found["cogan_batch_size_bucket 16.0"] == found["cogan_batch_size_bucket +Inf"] == 2
        assert found["cogan_batch_size_count"] == found["cogan_batches_total tiny"] == 2
        assert found["cogan_batch_size_sum"] == found["cogan_samples_total tiny"] == 24
        assert found["cogan_requests_in_flight"] == found["cogan_queue_depth tiny"] == 3
        assert found["cogan_processes"] == 2
        assert found["cogan_model_run_seconds_count tiny 8 1"] == found["cogan_model_run_seconds_count tiny 16 1"] == 1
        assert found["process_resident_memory_bytes"] > 1.5 * alone["process_resident_memory_bytes"]
        assert found["process_start_time_seconds"] == alone["process_start_time_seconds"]
        assert found["cogan_model_last_run_timestamp_seconds tiny 1"] > alone["process_start_time_seconds"]


def test_a_scrape_never_falls(start_member: Callable[[], Member]) -> None:
    """A process that ends takes its gauges with it, and none of its counts; its replacement adds to them."""
    first, second = start_member(), start_member()
    first.run(use(1))
    before = second.run(use(2))
    second.die()
    after = first.run()
    assert cumulative(after) == cumulative(before)
    assert (after["cogan_requests_in_flight"], after["cogan_queue_depth tiny"], after["cogan_processes"]) == (1, 1, 1)
    assert after["process_resident_memory_bytes"] < before["process_resident_memory_bytes"]
    replaced = start_member().run(use(2))
    assert cumulative(replaced).keys() == cumulative(before).keys()
    assert all(value >= cumulative(before)[name] for name, value in cumulative(replaced).items())
    assert replaced["cogan_http_requests_total 200 GET /generate"] == 5


def test_gauges_of_models_are_those_of_the_process_that_answers(start_member: Callable[[], Member]) -> None:
    """No process says what another serves, and nothing is left of a model that is gone."""
    first, second = start_member(), start_member()
    first.run("served = [ServedModel('tiny', '1', 'sha256:0', 'cpu', 0.5)]")
    found = first.run("metrics.watch_models(lambda: served, lambda: 0, lambda: bool(served))")
    assert found["cogan_model_info sha256:0 tiny cpu 1"] == found["cogan_ready"] == 1
    assert "cogan_model_info sha256:0 tiny cpu 1" not in second.run()
    first.run("metrics.watch_queue('tiny', lambda: 3)")
    gone = first.run("served.clear(); metrics.forget_model('tiny')")
    assert {name: value for name, value in gone.items() if "tiny" in name} == {"cogan_queue_depth tiny": 0}
    assert gone["cogan_ready"] == 0


def test_gauges_of_a_process_that_is_not_asked_are_current(start_member: Callable[[], Member]) -> None:
    """Every process keeps its gauges sampled, so that a scrape of another sees them within a second or so."""
    first, second = start_member(), start_member()
    first.run("import asyncio, threading")
    first.run("threading.Thread(target=lambda: asyncio.run(metrics.keep_sampled()), daemon=True).start()")
    first.run("threading.Timer(0.1, lambda: setattr(metrics, 'in_flight', 7)).start()")
    end = time.monotonic() + START
    while second.run()["cogan_requests_in_flight"] != 7 and time.monotonic() < end:
        time.sleep(0.05)
    assert second.run()["cogan_requests_in_flight"] == 7


def test_both_modes_have_the_same_metrics(start_member: Callable[[], Member]) -> None:
    """An operator's queries hold for one process and for several: no sample has another name or other labels."""
    alone = Metrics()
    exec(use(1), {"metrics": alone})
    assert set(start_member().run(use(1))) == set(scrape(alone))
