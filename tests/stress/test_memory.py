"""Memory is bounded: what an answer needs is given back, whatever was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Service
from tests.stress.forms import forms
from tests.stress.gauges import settled
from tests.stress.load import Plan, load
from tests.stress.mixture import GOOD, WRONG

CACHE = 2**19  # bytes: full after some hundred answers


@pytest.mark.parametrize(("first", "then", "growth"), forms((500, 2000, 1.05), (20_000, 180_000, 1.05)))
def test_memory_does_not_grow_with_requests(
    tiny_model: Callable[..., Path], start: Callable[..., Service], first: int, then: int, growth: float
) -> None:
    """Once the cache is full, no more is held after ten times as many requests, no two of them alike."""
    tiny_model(("digit", "edge", *"abcdef"))  # large answers
    service = start(cache_bytes=CACHE, max_pairs=16, max_frames=16)
    resident = []
    for requests in (first, then):
        report = load(Plan(service.port, [*GOOD, *WRONG], 8, requests=requests))
        assert (sum(report.statuses.values()), report.unanswered) == (requests, 0)
        assert report.statuses.keys() == {"200", "400", "404", "422"}
        resident.append(settled(service.url)["process_resident_memory_bytes"])
        service.lines.clear()
    print(resident)
    assert resident[1] <= growth * resident[0], resident
