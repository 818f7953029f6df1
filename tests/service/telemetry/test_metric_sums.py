"""The metrics of several processes read as those of one."""

from __future__ import annotations

import json

from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metric_sums import Sums, snapshot
from service.telemetry.metrics import Metrics


def test_counts_add_up_and_facts_stay() -> None:
    """Counters, histograms and gauges are summed; what is true of each process is told once."""
    snapshots = []
    for number in (1, 2):
        metrics = Metrics()
        metrics.requests.labels("/generate", "GET", 200).inc(number)
        metrics.requests.labels(f"/only{number}", "GET", 200).inc()
        metrics.batch_size.observe(number * 8)
        metrics.in_flight = number
        metrics.model_info.labels("m", "1", "d", "cpu").set(1)
        metrics.ready.set(number - 1)
        snapshots.append(json.loads(json.dumps(snapshot(metrics.registry))))
    text = generate_latest(Sums(snapshots)).decode()
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["cogan_http_requests_total", "/generate", "200", "GET"] == 3
    assert values["cogan_http_requests_total", "/only2", "200", "GET"] == 1
    assert values["cogan_batch_size_bucket", "8.0"] == 1
    assert values["cogan_batch_size_bucket", "16.0"] == values["cogan_batch_size_count",] == 2
    assert values["cogan_requests_in_flight",] == 3
    assert values["cogan_model_info", "1", "cpu", "d", "m"] == 1
    assert values["cogan_ready",] == 0
    assert values["cogan_processes",] == 2
    assert values["process_start_time_seconds",] < 2e9


def test_one_process_reads_as_its_own_registry() -> None:
    """Nothing is lost on the way: the text is that of the library, in both formats."""
    metrics = Metrics()
    metrics.requests.labels("/generate", "GET", 200).inc()
    metrics.batch_size.observe(3)
    for encode in (generate_latest, generate_open):
        lines = [
            encode(one).decode().splitlines()
            for one in (metrics.registry, Sums([snapshot(metrics.registry)]))
        ]
        kept = [[line for line in text if not line.startswith("process_")] for text in lines]
        assert kept[0] == kept[1]
