"""The simulation of autoscaling does what its page says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.scaling.simulation import SIGNALS, TICK_S, Cluster, Signal, day_of_load, simulate

HOUR = round(3600 / TICK_S)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_a_steady_load_is_served(signal: Signal) -> None:
    """What two replicas can serve is neither refused nor late, and asks for no third."""
    outcome = simulate(Cluster(), signal, np.full(HOUR, 1000.0), seed=0)
    assert outcome.requests == pytest.approx(3_600_000, rel=0.01)
    assert outcome.missed == 0
    assert outcome.replica_hours == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_a_load_that_grows_is_followed_and_left_again(signal: Signal) -> None:
    """Replicas come while the load lasts, and most go within minutes of its end."""
    load = np.concatenate([np.full(HOUR, 1000.0), np.full(HOUR, 8000.0), np.full(HOUR, 1000.0)])
    outcome = simulate(Cluster(), signal, load, seed=0)
    assert 0 < outcome.missed < 0.2
    assert outcome.replica_hours < 2 + 20 + 2 + 4
    last = simulate(Cluster(), signal, load[HOUR:], seed=0)
    assert last.missed > 0


def test_refusals_tell_what_busy_threads_cannot() -> None:
    """All threads are busy at any overload: refusals say by how much."""
    busy, both = (signal for signal in SIGNALS if signal.name.startswith("busy share"))
    load = np.where(np.arange(HOUR) < HOUR // 2, 1000.0, 9000.0)
    assert simulate(Cluster(), both, load, 0).missed < 0.7 * simulate(Cluster(), busy, load, 0).missed


def test_a_day_repeats() -> None:
    """The same seed gives the same day; another one other bursts."""
    assert np.array_equal(day_of_load(1000, 1), day_of_load(1000, 1))
    assert not np.array_equal(day_of_load(1000, 1), day_of_load(1000, 2))
    assert day_of_load(1000, 1).max() <= 1000 * (1 + 24 * 1.5)
