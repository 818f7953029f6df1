"""What a running service says of itself at /metrics."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

IDLE: dict[str, float] = {"cogan_queue_depth": 0, "cogan_requests_in_flight": 1}  # the one that asks for them
SETTLE_S = 30.0


def parse(text: str) -> dict[str, float]:
    """Return the sum of each metric by its name, and by its name and the value of each label."""
    metrics: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for name in (sample.name, *(f"{sample.name} {value}" for value in sample.labels.values())):
                metrics[name] = metrics.get(name, 0.0) + sample.value
    return metrics


def read(url: str) -> dict[str, float]:
    """Return what `parse` makes of the metrics of a service."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return parse(str(answer.read(), "utf-8"))


def settled(url: str, wanted: Mapping[str, float] = IDLE) -> dict[str, float]:
    """Return the metrics once some are as wanted; fail after SETTLE_S."""
    end = time.monotonic() + SETTLE_S
    while True:
        metrics = read(url)
        found = {name: metrics.get(name, 0.0) for name in wanted}
        if found == wanted:
            return metrics
        assert time.monotonic() < end, f"{found}, not {wanted}"
        time.sleep(0.1)
