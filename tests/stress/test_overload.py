"""Asked for twice what it can, the service does what it can, in time, and says no to the rest."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.running import Service
from tests.stress.conftest import pairs
from tests.stress.forms import forms
from tests.stress.gauges import read, settled
from tests.stress.load import ROOT, Plan, Template, load

DEADLINE_S = 2.0
PAIRS = 32  # in a request: drawing is the work, beside which refusing costs little
CLIENTS = 8  # who ask in a closed loop and find room
QUEUE = CLIENTS * PAIRS  # latents
QUESTION: list[Template] = [("POST", "/generate", f'{{"seed":%d,"count":{PAIRS},"model":"digit_edge"}}')]


class Goodput(NamedTuple):
    """Answers in time, for each second of a clock and of the processor time that the service had."""

    of_clock: float
    of_processor: float


def ask(service: Service, plan: Plan) -> tuple[Goodput, dict[str, int]]:
    """Load the service; return the goodput and the statuses. All who are let in are answered in time."""
    used = -read(service.url)["process_cpu_seconds_total"]
    report = load(plan)
    used += settled(service.url)["process_cpu_seconds_total"]
    assert (report.without_retry_after, report.unanswered) == (0, 0)
    assert report.p99 <= DEADLINE_S
    return Goodput(report.goodput, report.in_time / used), report.statuses


def measure_peak(service: Service, seconds: float) -> Goodput:
    """Return the goodput of clients for whom there is always room."""
    goodput, statuses = ask(service, Plan(service.port, QUESTION, CLIENTS, seconds, deadline=DEADLINE_S))
    assert statuses.keys() == {"200"}
    return goodput


def flood(service: Service, seconds: float, rate: float) -> Goodput:
    """Return the goodput at a rate that is too high: doubled until a fifth is refused.

    Where another process had the processors while the peak was measured, twice the measured one floods nothing.
    """
    for _ in range(4):
        goodput, statuses = ask(service, Plan(service.port, QUESTION, 128, seconds, rate=rate, deadline=DEADLINE_S))
        assert statuses.keys() <= {"200", "429", "503", "504"}
        if statuses.get("429", 0) > 0.2 * sum(statuses.values()):
            return goodput
        rate *= 2
    pytest.fail(f"nothing was refused at {rate / 2:.0f} requests/s: {statuses}")


@pytest.mark.parametrize(("seconds", "share", "of_clock"), forms((3.0, 0.3, 0.2), (60.0, 0.9, 0.8)))
def test_twice_the_peak_leaves_the_goodput(seconds: float, share: float, of_clock: float) -> None:
    """It stays near the peak, measured before and after the flood; the rest is 429 or 504.

    The short form, which runs beside other tests, tells only that the service does not collapse.
    """
    limits = {"max_queue": QUEUE, "max_pairs": QUEUE, "max_frames": QUEUE, "cache_bytes": 0}
    with pairs(ROOT / "models") as start:
        service = start(deadline_s=DEADLINE_S, **limits)
        measure_peak(service, 0.5)  # to warm up
        before = measure_peak(service, min(seconds / 2, 10.0))
        flooded = flood(service, seconds, 2 * before.of_clock)
        after = measure_peak(service, min(seconds / 2, 10.0))
    by_clock = 2 * flooded.of_clock / (before.of_clock + after.of_clock)
    by_processor = 2 * flooded.of_processor / (before.of_processor + after.of_processor)
    print(f"of the peak by the clock {by_clock:.3f}, by processor time {by_processor:.3f}")
    assert by_processor >= share
    assert by_clock >= of_clock
