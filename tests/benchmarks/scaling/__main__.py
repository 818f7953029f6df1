"""Print what each signal misses and costs in a simulated day, as a table: python -m tests.benchmarks.scaling."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

import tyro

from tests.benchmarks.scaling.simulation import SIGNALS, Cluster, day_of_load, simulate


@dataclass(frozen=True)
class Options:
    """The load and the cluster."""

    peak: float = 4000.0
    """Requests a second at noon, without bursts."""
    seeds: int = 3
    """Days, each with bursts of its own."""
    cluster: Cluster = field(default_factory=Cluster)


def main() -> None:
    """Simulate every signal on the same days."""
    options = tyro.cli(Options)
    print("| scaled on | requests missed | refused | late | replica hours | changes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for signal in SIGNALS:
        days = [
            simulate(options.cluster, signal, day_of_load(options.peak, seed), seed) for seed in range(options.seeds)
        ]
        print(
            f"| {signal.name} | {median(day.missed for day in days):.3%} "
            f"| {median(day.refused / day.requests for day in days):.3%} "
            f"| {median(day.late / day.requests for day in days):.3%} "
            f"| {median(day.replica_hours for day in days):.0f} | {median(day.changes for day in days):.0f} |"
        )


if __name__ == "__main__":
    main()
