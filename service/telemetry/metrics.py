"""Prometheus metrics: base units, few labels, never a seed or a raw path.

With several processes, counters, histograms and the gauges of queue and requests in flight are in files that all
processes read (prometheus_client's multiprocess mode, PROMETHEUS_MULTIPROC_DIR). The gauges of models are those of the
process that answers, as each serves the same; `process_*` are of all processes.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the multiprocess mode has none
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
LAST_RUN_EVERY_S = 0.1
SAMPLE_EVERY_S = 0.5  # of gauges; writing each change to a shared file would cost every request a hundredth
RUNS = "cogan_model_run_seconds"
T = TypeVar("T")
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when it is imported


class ServedModel(NamedTuple):
    """A served model as the metrics describe it."""

    name: str
    version: str
    digest: str
    provider: str
    load_s: float


class ModelMetrics:
    """Counts of one version of a model, which the Open Inference Protocol's statistics come from."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._metrics, self._name, self._version = metrics, name, version
        self.succeeded = metrics.model_requests.labels(name, version, "success")
        self.failed = metrics.model_requests.labels(name, version, "fail")
        self.queued = metrics.queue_wait.labels(name, version)
        self._last_run, self._last_run_at = metrics.model_last_run.labels(name, version), 0.0
        self._durations = cache(metrics.inference_duration.labels)
        self._runs = cache(metrics.model_runs.labels)

    def ran(self, rows: int, seconds: float, provider: str) -> None:
        """Count a run of `rows` rows."""
        self._runs(self._name, self._version, rows).observe(seconds)
        self._durations(self._name, provider).observe(seconds)
        if (now := time.time()) - self._last_run_at >= LAST_RUN_EVERY_S:
            self._last_run.set(now)
            self._last_run_at = now


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._sampling = threading.Lock()  # a model is not forgotten while it is sampled
        self._folder = os.environ.get(MULTIPROCESS)
        self.in_flight = 0  # requests being answered
        self._depths: dict[str, Callable[[], int]] = {}
        self._models: Callable[[], Iterator[Metric]] = lambda: iter(())
        self.of_model = cache(lambda name, version: ModelMetrics(self, name, version))
        self._encode_durations = cache(lambda format_: self.encode_duration.labels(format_))
        counter = partial(Counter, namespace="cogan", registry=self._registry)
        gauge = partial(Gauge, namespace="cogan", registry=self._registry, multiprocess_mode="livesum")
        self._http(counter, gauge)
        self._engine(gauge)
        gauge("processes", "Processes that answer.").set(1)

    def _http(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        labels = ("route", "method", "code")
        self.requests = counter("http_requests_total", "Requests answered; code 499 is a client that left.", labels)
        about = "Time from a request's headers to the end of its response."
        self.request_duration = self._histogram("http_request_duration_seconds", about, "route")
        self._in_flight_gauge = gauge("requests_in_flight", "Requests being answered.")
        self.shard_pairs = counter("shard_pairs_total", "Pairs generated for shards.")
        about = "Requests that the queue or the rate limit rejected or dropped."
        self.rejected = counter("rejected_total", about, ("reason",))
        for reason in ("queue_full", "deadline", "cancelled", "rate_limit"):
            self.rejected.labels(reason)
        self.cache_hits = counter("cache_hits_total", "Responses from the cache.")
        self.cache_misses = counter("cache_misses_total", "Responses computed.")

    def _engine(self, gauge: Callable[..., Gauge]) -> None:
        histogram, summary = self._histogram, partial(Summary, namespace="cogan", registry=self._registry)
        version = ("model", "version")
        self._depth_gauge = gauge("queue_depth", "Images that wait.", ("model",))
        self.queue_wait = histogram("queue_wait_seconds", "Wait of a request's first image.", *version)
        self.inference_duration = histogram("inference_duration_seconds", "Time of one run.", "model", "provider")
        self.encode_duration = histogram("encode_duration_seconds", "Time to encode one response.", "format")
        about = "Time in queue, run and encoding of what a request asks of a model, perhaps several times."
        self.model_requests = summary("model_request_seconds", about, (*version, "outcome"))
        self.model_runs = summary("model_run_seconds", "Time of a run, by its rows.", (*version, "rows"))
        about = "When a model last ran, since 1970."
        self.model_last_run = gauge("model_last_run_timestamp_seconds", about, version, multiprocess_mode="max")

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(name, about, labels, namespace="cogan", registry=self._registry, buckets=SECONDS)

    def timed(self, format_: str, encoding: Generator[None, None, T]) -> Generator[None, None, T]:
        """Encode, and record how long it took."""
        with self._encode_durations(format_).time():
            return (yield from encoding)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, those of several processes added up."""
        self._sample_gauges()
        shared: Collector = self._registry
        if self._folder is not None:
            shared = MultiProcessCollector(None, self._folder)  # type: ignore[no-untyped-call]
        metrics = list(shared.collect())
        yield from metrics
        yield from _of_runs([sample for metric in metrics if metric.name == RUNS for sample in metric.samples])
        yield from _of_processes(self._folder)
        yield from self._models()

    async def keep_sampled(self) -> None:
        """Sample the gauges for ever, so that other processes can read them."""
        while self._folder is not None:
            self._sample_gauges()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _sample_gauges(self) -> None:
        self._in_flight_gauge.set(self.in_flight)
        with self._sampling:
            for name, depth in self._depths.items():
                self._depth_gauge.labels(name).set(depth())

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Expose what `depth` returns as the queue depth of a model."""
        with self._sampling:
            self._depths[name] = depth

    def watch_models(
        self, served: Callable[[], list[ServedModel]], refused: Callable[[], int], ready: Callable[[], bool]
    ) -> None:
        """Expose the gauges of models, from what these return at each scrape: none outlives its model."""
        self._models = lambda: _of_models(served(), refused(), ready())

    def forget_model(self, name: str) -> None:
        """Drop the queue depth of a model that is gone; shared files cannot drop it, and keep 0."""
        with self._sampling:
            if self._depths.pop(name, None) is not None:
                self._depth_gauge.labels(name).set(0)
                if self._folder is None:
                    self._depth_gauge.remove(name)


def _of_runs(runs: list[Sample]) -> Iterator[Metric]:
    """Yield the metrics of batches that follow from the counts of runs by model and rows."""
    batches = CounterMetricFamily("cogan_batches", "Runs of a model.", labels=["model"])
    samples = CounterMetricFamily("cogan_samples", "Images computed.", labels=["model"])
    counts = [(s.labels["model"], int(s.labels["rows"]), s.value) for s in runs if s.name == f"{RUNS}_count"]
    for model in sorted({model for model, _, _ in counts}):
        own = [(rows, count) for name, rows, count in counts if name == model]
        batches.add_metric([model], sum(count for _, count in own))
        samples.add_metric([model], sum(rows * count for rows, count in own))
    buckets = [
        (floatToGoString(bound), sum(count for _, rows, count in counts if rows <= bound))  # type: ignore[no-untyped-call]
        for bound in (*SIZES, math.inf)
    ]
    total = sum(rows * count for _, rows, count in counts)
    yield from (batches, samples, HistogramMetricFamily("cogan_batch_size", "Images in a run.", buckets, total))


def _of_models(served: list[ServedModel], refused: int, ready: bool) -> Iterator[Metric]:
    about, labels = "1 for every model that is served.", ("model", "version", "digest", "provider")
    info = GaugeMetricFamily("cogan_model_info", about, labels=labels)
    load = GaugeMetricFamily("cogan_model_load_seconds", "Time to load and warm up a model.", labels=["model"])
    for name, version, digest, provider, load_s in served:
        info.add_metric([name, version, digest, provider], 1)
        load.add_metric([name], load_s)
    yield from (info, load, GaugeMetricFamily("cogan_models_refused", "Model files refused.", refused))
    yield GaugeMetricFamily("cogan_ready", "1 while /readyz answers 200.", float(ready))


def _of_processes(folder: str | None) -> Iterator[Metric]:
    """Yield `process_*` of all live processes added up; the start time is that of the oldest."""
    pids, totals = [os.getpid()], dict[str, Metric]()
    if folder is not None:
        pids = [int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("gauge_livesum_*.db")]
    for pid in pids:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            total = totals.setdefault(metric.name, metric)
            if total is not metric:
                combine = min if metric.name == "process_start_time_seconds" else sum
                values = [total.samples[0].value, metric.samples[0].value]
                total.samples = [total.samples[0]._replace(value=combine(values))]
    yield from totals.values()
