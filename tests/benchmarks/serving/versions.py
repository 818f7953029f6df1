"""Two checkouts of the service, measured in turns: CPU seconds per 1,000 requests, requests/s and p99.

    python -m tests.benchmarks.serving.versions ../before . --rounds 10 --seconds 3

Each round starts both servers, the first one alternating, and loads each with distinct seeds of the digit_edge that
BEFORE has, as an older service does not read what a newer one writes. Printed are the
medians, and the median of the ratios of each round with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.serving.__main__ import install
from tests.benchmarks.serving.load import Load, Sample, measure
from tests.benchmarks.serving.processes import adopt_orphans
from tests.benchmarks.serving.servers import ROOT, Arm, serving

FIGURES = ("cpu_seconds_per_1000_pairs", "requests_per_second", "p99_ms")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-service/bin/python")
    options = parser.parse_args()
    adopt_orphans()
    arms = [
        Arm(name, (str(options.python), "-m", "service"), checkout=folder.resolve(), environment=_settings(options))
        for name, folder in (("before", options.before), ("after", options.after))
    ]
    samples: dict[tuple[str, int], list[Sample]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = install(max(Path(options.before).glob("models/digit_edge/*/model.onnx")), Path(scratch))
        for number in range(options.rounds):
            for arm in arms if number % 2 else reversed(arms):
                for sample in _round(arm, model, Path(scratch), number, options):
                    samples.setdefault((arm.name, sample.connections), []).append(sample)
    for connections in options.connections:
        for figure in FIGURES:
            print(_row(figure, connections, samples))


def _settings(options: argparse.Namespace) -> dict[str, str]:
    return {"COGAN_PROCESSES": str(options.processes)}


def _round(arm: Arm, model: Path, scratch: Path, number: int, options: argparse.Namespace) -> list[Sample]:
    fixed = {"arm": arm.name, "repeat": number, "domains": 2}
    with serving(arm, model, scratch) as server:
        measure(server, Load(32, 1), what="warm-up", **fixed)  # type: ignore[arg-type]
        return [
            measure(server, Load(n, options.seconds), what="distinct seeds", **fixed)  # type: ignore[arg-type]
            for n in options.connections
        ]


def _row(figure: str, connections: int, samples: dict[tuple[str, int], list[Sample]]) -> str:
    before, after = ([getattr(one, figure) for one in samples[name, connections]] for name in ("before", "after"))
    ratios = sorted(b / a for a, b in zip(before, after, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    medians = f"{statistics.median(before):9.3f} -> {statistics.median(after):9.3f}"
    return f"{connections:4} connections  {figure:28} {medians}   ratio {middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
