"""Metrics of all processes as one scrape: counted together, as if there were one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

Together = Callable[[Iterable[float]], float]
TOGETHER: dict[str, Together] = {  # what is not a sum
    "cogan_model_info": max,
    "cogan_model_load_seconds": max,
    "cogan_models_refused": max,
    "cogan_ready": min,
    "process_start_time_seconds": min,
}


def snapshot(registry: CollectorRegistry) -> list[Any]:
    """Return the metrics of one process as JSON can carry them."""
    return [
        [m.name, m.documentation, m.type, [[s.name, s.labels, s.value] for s in m.samples]]
        for m in registry.collect()
    ]


class Sums(CollectorRegistry):
    """The metrics of several snapshots, in the order in which they are first met."""

    def __init__(self, snapshots: Sequence[list[Any]]) -> None:
        super().__init__()
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """Give each metric once, with what the processes have of every sample."""
        metrics: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for name, about, kind, samples in (metric for one in self._snapshots for metric in one):
            metrics.setdefault(name, Metric(name, about, kind))
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                values.setdefault(name, {}).setdefault(key, []).append(value)
        for name, metric in metrics.items():
            for (sample, labels), several in values.get(name, {}).items():
                metric.samples.append(Sample(sample, dict(labels), _together(sample)(several)))
            yield metric


def _together(sample: str) -> Together:
    return min if sample.endswith("_created") else TOGETHER.get(sample, sum)
