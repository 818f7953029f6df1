"""Asked for twice what it can, the service does what it can, in time, and says no to the rest."""

from __future__ import annotations

from statistics import median

import pytest

from tests.running import Service, services
from tests.stress.forms import forms
from tests.stress.gauges import settled
from tests.stress.load import ROOT, Plan, Report, Template, load

DEADLINE_S = 2.0
PAIRS = 32  # in a request: drawing is the work, beside which refusing costs little
CLIENTS = 8  # who ask in a closed loop and find room
QUEUE = CLIENTS * PAIRS  # latents
QUESTION: list[Template] = [("POST", "/generate", f'{{"seed":%d,"count":{PAIRS},"model":"digit_edge"}}')]


def measure_peak(service: Service, seconds: float) -> float:
    """Return the goodput of clients for whom there is always room."""
    report = load(Plan(service.port, QUESTION, CLIENTS, seconds, deadline=DEADLINE_S))
    assert report.statuses.keys() == {"200"}
    return report.goodput


def flood(service: Service, seconds: float, rate: float) -> Report:
    """Ask at a rate that is too high; whoever is refused is told when to come again."""
    report = load(Plan(service.port, QUESTION, 512, seconds, rate=rate, deadline=DEADLINE_S))
    assert report.statuses.keys() <= {"200", "429", "503", "504"}
    assert report.statuses["429"] > 0.2 * sum(report.statuses.values())  # it was a flood
    assert (report.without_retry_after, report.unanswered) == (0, 0)
    assert report.p99 <= DEADLINE_S
    settled(service.url)
    return report


@pytest.mark.parametrize(("rounds", "seconds", "share"), forms((1, 4.0, 0.6), (6, 10.0, 0.9)))
def test_twice_the_peak_leaves_the_goodput(rounds: int, seconds: float, share: float) -> None:
    """Answers in time stay near the peak, which is measured before and after each part of the flood."""
    limits = {"max_queue": QUEUE, "max_pairs": QUEUE, "max_frames": QUEUE, "cache_bytes": 0}
    kept = []
    with services(ROOT / "models") as start:
        service = start(deadline_s=DEADLINE_S, **limits)
        measure_peak(service, 0.5)  # to warm up
        peak = measure_peak(service, seconds / 2)
        for _ in range(rounds):
            report, before = flood(service, seconds, 2 * peak), peak
            peak = measure_peak(service, seconds / 2)
            kept.append(2 * report.goodput / (before + peak))
    print([round(one, 3) for one in kept])
    assert median(kept) >= share, kept
