"""Draws the figures that the page shows: throughput by connections, and latency by rate."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.serving.load import Sample
from tests.benchmarks.serving.report import median, pick, unique
from tests.benchmarks.serving.servers import OURS


def draw(samples: list[Sample], limit: dict[str, list[float]], path: Path) -> None:
    """Write the plot as SVG or PNG, by the ending of the path."""
    rcParams["svg.hashsalt"] = "cogan"  # equal figures, equal files
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _throughput(left, [s for s in samples if s.what == "distinct seeds" and s.rate is None], limit)
    _latency(right, [s for s in samples if s.rate is not None])
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


def _throughput(axes: Axes, samples: list[Sample], limit: dict[str, list[float]]) -> None:
    connections = sorted({s.connections for s in samples})
    for arm in unique(s.arm for s in samples):
        found = [pick(samples, arm=arm, connections=c) for c in connections]
        rates = [median(at, "requests_per_second") for at in found]
        low, high = (
            [abs(f(s.requests_per_second for s in at) - rate) for at, rate in zip(found, rates, strict=True)]
            for f in (min, max)
        )
        axes.errorbar(connections, rates, yerr=(low, high), label=arm, **_style(arm))
    for name, rates in limit.items():
        if name.startswith("pillow"):
            rate = statistics.median(rates)
            axes.axhline(rate, color="0.6", linestyle=":")
            axes.annotate(name.replace("pillow", "no HTTP"), (1, rate), color="0.4", va="bottom", size="small")
    axes.set(xscale="log", ylim=(0, None), xlabel="connections", ylabel="requests per second")
    axes.set_xticks(connections, labels=map(str, connections))
    axes.set_title("Closed loop, distinct seeds")
    axes.legend(fontsize="small")


def _latency(axes: Axes, samples: list[Sample]) -> None:
    rates = sorted({s.rate for s in samples if s.rate is not None})
    for arm in unique(s.arm for s in samples):
        values = [median(pick(samples, arm=arm, rate=rate), "p99_ms") for rate in rates]
        axes.plot(rates, values, label=arm, **_style(arm))
    axes.set(yscale="log", xlabel="requests per second", ylabel="p99 in ms")
    axes.set_title("Open loop: latency from when a request was due")


def _style(arm: str) -> dict[str, Any]:
    return {"marker": "o", "linewidth": 2.5 if arm == OURS else 1.2, "zorder": 3 if arm == OURS else 2}
