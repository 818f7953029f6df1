"""Prometheus metrics of one app: base units, few labels, never a seed or a raw path."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics and their own registry, so that apps in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self._http(registry)
        self._engine(registry)
        self._models(registry)

    def _http(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "cogan_http_requests_total",
            "Requests answered; code 499 is a client that left.",
            ["route", "method", "code"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "cogan_http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = 0  # requests being answered
        in_flight = Gauge("cogan_requests_in_flight", "Requests being answered.", registry=registry)
        in_flight.set_function(lambda: self.in_flight)
        self.rejected = Counter(
            "cogan_rejected_total",
            "Requests that the queue or the rate limit turned away or dropped.",
            ["reason"],
            registry=registry,
        )
        for reason in ("queue_full", "deadline", "cancelled", "rate_limit"):
            self.rejected.labels(reason)

    def _engine(self, registry: CollectorRegistry) -> None:
        self.queue_depth = Gauge("cogan_queue_depth", "Latents that wait.", ["model"], registry=registry)
        self.queue_wait = Histogram(
            "cogan_queue_wait_seconds",
            "Wait of a request's first latent.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram("cogan_batch_size", "Latents in a run.", buckets=SIZES, registry=registry)
        self.batches = Counter("cogan_batches_total", "Runs of a model.", ["model"], registry=registry)
        self.samples = Counter("cogan_samples_total", "Latents drawn.", ["model"], registry=registry)
        self.inference_duration = Histogram(
            "cogan_inference_duration_seconds",
            "Time of one run.",
            ["model", "provider"],
            buckets=SECONDS,
            registry=registry,
        )
        self.encode_duration = Histogram(
            "cogan_encode_duration_seconds",
            "Time to encode one answer.",
            ["format"],
            buckets=SECONDS,
            registry=registry,
        )
        self.cache_hits = Counter("cogan_cache_hits_total", "Answers from the cache.", registry=registry)
        self.cache_misses = Counter("cogan_cache_misses_total", "Answers computed.", registry=registry)

    def _models(self, registry: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "cogan_model_info",
            "1 for every model that is served.",
            ["model", "version", "digest", "provider"],
            registry=registry,
        )
        self.model_load = Gauge(
            "cogan_model_load_seconds", "Time to load and warm up a model.", ["model"], registry=registry
        )
        self.models_refused = Gauge("cogan_models_refused", "Model files refused.", registry=registry)
        self.ready = Gauge("cogan_ready", "1 while /readyz answers 200.", registry=registry)
        Gauge("cogan_processes", "Processes that answer.", registry=registry).set(1)
