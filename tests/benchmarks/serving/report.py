"""Raw values -> a Markdown page of medians, each with the spread of its repeats: (max - min) / median."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.benchmarks.serving.limit import LARGEST_BATCH, threads_of_one_process, threads_text
from tests.benchmarks.serving.load import Sample
from tests.benchmarks.serving.servers import ALONE, OURS

Results = dict[str, Any]
Cell = Callable[[list[Sample]], str]


def median(samples: Iterable[Sample], field: str) -> float:
    """Return the median of a field; nan of nothing."""
    values = [getattr(sample, field) for sample in samples]
    return statistics.median(values) if values else float("nan")


def spread(values: Sequence[float]) -> float:
    """Return (max - min) / median."""
    return (max(values) - min(values)) / statistics.median(values) if values and any(values) else 0.0


def pick(samples: Iterable[Sample], **fields: object) -> list[Sample]:
    """Return the samples that have these values."""
    return [s for s in samples if all(getattr(s, name) == value for name, value in fields.items())]


def unique(values: Iterable[Any]) -> list[Any]:
    """Return the values in the order of their first appearance, each once."""
    return list(dict.fromkeys(values))


def markdown(results: Results, samples: list[Sample]) -> str:
    """Write the page."""
    closed = [s for s in samples if s.what == "distinct seeds" and s.rate is None]
    opened = [s for s in samples if s.rate is not None]
    by_connections = sorted({s.connections for s in closed})
    by_rate = sorted({s.rate for s in opened if s.rate is not None})
    columns = {_connections(c): {"connections": c} for c in by_connections}
    rates = {f"{rate:g} requests/s": {"rate": rate} for rate in by_rate}
    parts = [
        _head(results),
        _table("Requests per second, distinct seeds, closed loop", closed, columns, _rate),
        _ratios(closed, by_connections),
        _table("Latency, closed loop: p50 / p95 / p99 in ms", closed, columns, _latency),
        _table("Images per second, closed loop", closed, columns, _cell("images_per_second", ".0f")),
        _table("CPU seconds for 1,000 pairs", closed, columns, _cell("cpu_seconds_per_1000_pairs", ".2f")),
        _table("Memory in MB, shared pages counted once", closed, columns, _cell("memory_mb", ".0f")),
        _table("Latency, open loop: p50 / p95 / p99 in ms", opened, rates, _latency),
        _own(samples, OURS, results),
        _own(samples, ALONE, results),
        _limit(results["limit"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results) -> str:
    machine, versions = results["machine"], results["versions"]
    skipped = "".join(f"\n\nNot measured: {name}, {why}." for name, why in results["skipped"].items())
    return (
        "# Serving, measured\n\n"
        f"Model `{results['model']}`; {machine['processors']} processors, {machine['processor']}; load by "
        f"{results['load_generator']}; medians of {results['repeats']} repeats of {results['seconds']} s, "
        "interleaved; in brackets (max - min) / median. Written by `make bench`; do not edit.\n\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.{skipped}"
    )


def _table(title: str, samples: list[Sample], columns: dict[str, dict[str, Any]], cell: Cell) -> str:
    lines = [f"## {title}", "", "| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for arm in unique(s.arm for s in samples):
        own = pick(samples, arm=arm)
        cells = [cell(pick(own, **chosen)) for chosen in columns.values()]
        lines.append(f"| {f'**{arm}**' if arm == OURS else arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(field: str, form: str) -> Cell:
    return lambda samples: format(median(samples, field), form)


def _connections(number: int) -> str:
    return f"{number} connection{'s' * (number > 1)}"


def _rate(samples: list[Sample]) -> str:
    values = [s.requests_per_second for s in samples]
    return f"{median(samples, 'requests_per_second'):,.0f} ({spread(values):.0%}){_failed(samples)}"


def _latency(samples: list[Sample]) -> str:
    figures = (f"{median(samples, field):.2f}" for field in ("p50_ms", "p95_ms", "p99_ms"))
    return " / ".join(figures) + _failed(samples)


def _failed(samples: list[Sample]) -> str:
    failed = sum(s.errors for s in samples)
    return f", {failed} failed" if failed else ""


def _ratios(closed: list[Sample], by_connections: list[int]) -> str:
    """Say how this service compares with the best peer at each number of connections."""
    sentences = []
    for connections in by_connections:
        at = pick(closed, connections=connections)
        rates = {arm: median(pick(at, arm=arm), "requests_per_second") for arm in unique(s.arm for s in at)}
        ours, _ = rates.pop(OURS, None), rates.pop(ALONE, None)
        if ours and rates:
            best = max(rates, key=lambda arm: rates[arm])
            sentences.append(f"{connections}: {ours / rates[best]:.2f} x {best}")
    return f"This service against the best peer, by connections: {'; '.join(sentences)}." if sentences else ""


def _own(samples: list[Sample], arm: str, results: Results) -> str:
    own = [s for s in samples if s.rate is None and s.arm == arm]
    plain = median(pick(own, what="distinct seeds", connections=32), "requests_per_second")
    loads = unique((s.what, s.connections) for s in own if s.what != "distinct seeds")
    lines = [
        f"## What only {arm} does",
        "",
        "| | requests/s | images/s | p50 / p95 / p99 in ms | x distinct | x onnxruntime, same threads |",
    ]
    lines.append("| --- |" + " ---: |" * 5)
    for name, connections in loads:
        found = pick(own, what=name, connections=connections)
        ratio = median(found, "requests_per_second") / plain if connections == 32 else None
        images = f"{median(found, 'images_per_second'):,.0f}" if name != "If-None-Match" else ""
        cells = [_rate(found), images, _latency(found), f"{ratio:.1f}" if ratio else ""]
        cells.append(_of_onnxruntime(found, results) if name.startswith(f"{LARGEST_BATCH} pairs") else "")
        lines.append(f"| {name}, {_connections(connections)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if loads else ""


def _of_onnxruntime(found: list[Sample], results: Results) -> str:
    """Compare answers of a whole batch with bare runs of it; a request has the threads of one process."""
    processors, (first, *_) = results["machine"]["processors"], found
    alone = first.arm != ALONE and first.connections == 1
    threads = threads_of_one_process(processors) if alone else processors
    bare = statistics.median(results["limit"][f"run, batch {LARGEST_BATCH}, {threads_text(threads)}"])
    return f"{median(found, 'requests_per_second') * LARGEST_BATCH / bare:.2f}"


def _limit(limit: dict[str, list[float]]) -> str:
    lines = ["## The limit: bare loops without HTTP", "", "| | pairs/s |", "| --- | ---: |"]
    for name, rates in limit.items():
        lines.append(f"| {name} | {statistics.median(rates):,.0f} ({spread(rates):.0%}) |")
    lines += ["", "`run` is onnxruntime alone; `pillow` and `own` make the whole JSON, with PNGs by Pillow or by"]
    return "\n".join([*lines, "this service's writer."])
