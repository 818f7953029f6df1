"""Discrete simulation of autoscaled replicas under a day's load with bursts; seeded, so that it repeats.

Time goes in ticks of 0.1 s. Arrivals are Poisson; replicas share them evenly, serve a fixed rate each, and refuse what
their queues cannot hold. A scraper reads the signal, the autoscaler acts as Kubernetes' does (desired = ceil(replicas x
value / target), up at once, down by the largest wish of the last minutes), and a replica serves some seconds later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TICK_S = 0.1
DAY_S = 86_400


@dataclass(frozen=True)
class Cluster:
    """Replicas, their limits, and how the autoscaler sees and changes them."""

    rate: float = 1000.0
    """Requests that one replica serves in a second."""
    queue: int = 1024
    """Requests that may wait in one replica: COGAN_MAX_QUEUE of each of its processes."""
    minimum: int = 2
    maximum: int = 20
    start_s: float = 15.0
    """From the decision to the first request that a new replica serves."""
    scrape_s: float = 5.0
    sync_s: float = 15.0
    """Between two decisions."""
    window_s: float = 30.0
    """Over which rates are taken."""
    down_s: float = 300.0
    """For which a wish to shrink must hold."""


@dataclass(frozen=True)
class Tick:
    """What one tick did, in requests; `waiting` at its end."""

    offered: float
    served: float
    refused: float
    waiting: float
    replicas: int


@dataclass(frozen=True)
class Signal:
    """A metric to scale on: its value of a window of ticks, in units of replicas that are wanted at the target."""

    name: str
    wanted: Callable[[Cluster, deque[Tick]], float]
    delay_s: float = 0.0
    """How old the newest value is when the autoscaler reads it."""


def _sum(ticks: deque[Tick], name: str) -> float:
    return float(sum(getattr(tick, name) for tick in ticks))


def _busy(cluster: Cluster, ticks: deque[Tick]) -> float:
    """Replicas' worth of busy threads."""
    return _sum(ticks, "served") / (cluster.rate * TICK_S * len(ticks))


def _busy_and_refused(cluster: Cluster, ticks: deque[Tick]) -> float:
    """Return the same with what was refused: the load that was offered."""
    served = _sum(ticks, "served")
    return _busy(cluster, ticks) * (1 + _sum(ticks, "refused") / max(served, 1.0))


def _queue(cluster: Cluster, ticks: deque[Tick]) -> float:
    """Return the depth at the moment of the scrape; a twentieth of a second of work counts as a full replica."""
    return ticks[-1].waiting / (0.05 * cluster.rate)


SIGNALS = (
    Signal("processor time", lambda c, t: _busy(c, t) / 0.7, delay_s=15.0),  # the metrics server's resolution
    Signal("queue depth", lambda c, t: _queue(c, t) / 0.7),
    Signal("busy share", lambda c, t: _busy(c, t) / 0.7),
    Signal("busy share and refusals", lambda c, t: _busy_and_refused(c, t) / 0.7),
)


def day_of_load(peak: float, seed: int, bursts: int = 24) -> NDArray[np.float64]:
    """Return the mean requests per second of each tick of a day: a sine from 0.2 to 1 of the peak, and bursts.

    A burst adds 0.5 to 1.5 of the peak within 2 s, for 1 to 10 minutes.
    """
    rng = np.random.default_rng(seed)
    seconds = np.arange(0, DAY_S, TICK_S)
    load = peak * (0.6 - 0.4 * np.cos(2 * math.pi * seconds / DAY_S))
    for begin, length, height in zip(
        rng.uniform(0, DAY_S, bursts), rng.uniform(60, 600, bursts), rng.uniform(0.5, 1.5, bursts), strict=True
    ):
        rise = np.clip((seconds - begin) / 2, 0, 1) * (seconds < begin + length)
        load += peak * height * rise
    return np.asarray(load)


@dataclass
class Outcome:
    """A day of one signal: requests, those that missed the objective, replica hours."""

    requests: float = 0.0
    refused: float = 0.0
    late: float = 0.0
    replica_hours: float = 0.0
    changes: int = 0

    @property
    def missed(self) -> float:
        """Share of requests that were refused or late."""
        return (self.refused + self.late) / max(self.requests, 1.0)


@dataclass
class _Autoscaler:
    cluster: Cluster
    signal: Signal
    ticks: deque[Tick] = field(default_factory=deque)
    seen: deque[tuple[float, float]] = field(default_factory=deque)  # when scraped, replicas wanted
    wishes: deque[tuple[float, int]] = field(default_factory=deque)

    def observe(self, now: float, tick: Tick) -> None:
        self.ticks.append(tick)
        if len(self.ticks) * TICK_S > self.cluster.window_s:
            self.ticks.popleft()
        if _is_due(now, self.cluster.scrape_s):
            self.seen.append((now, self.signal.wanted(self.cluster, self.ticks)))

    def desired(self, now: float, current: int) -> int:
        """Return the replicas that Kubernetes' autoscaler would ask for."""
        while len(self.seen) > 1 and self.seen[1][0] <= now - self.signal.delay_s:
            self.seen.popleft()
        wanted = self.seen[0][1] if self.seen else current
        if abs(wanted / current - 1) <= 0.1:  # its tolerance
            wanted = current
        wish = min(max(math.ceil(wanted), self.cluster.minimum), self.cluster.maximum)
        self.wishes.append((now, wish))
        while self.wishes[0][0] < now - self.cluster.down_s:
            self.wishes.popleft()
        return wish if wish > current else min(current, max(wish for _, wish in self.wishes))


def _is_due(now: float, every: float) -> bool:
    return round(now / TICK_S) % round(every / TICK_S) == 0


def simulate(
    cluster: Cluster, signal: Signal, load: NDArray[np.float64], seed: int, objective_s: float = 0.25
) -> Outcome:
    """Return what a day's load gives; a request misses if it is refused or waits for more than `objective_s`."""
    arrivals = np.random.default_rng(seed).poisson(load * TICK_S)
    scaler, outcome = _Autoscaler(cluster, signal), Outcome()
    ready, starting = cluster.minimum, deque[float]()  # when each new one serves
    waiting = 0.0
    for number, offered in enumerate(arrivals.tolist()):
        now = number * TICK_S
        while starting and starting[0] <= now:
            starting.popleft()
            ready += 1
        capacity = ready * cluster.rate * TICK_S
        served = min(waiting + offered, capacity)
        left = waiting + offered - served
        refused = max(0.0, left - ready * cluster.queue)
        waiting = left - refused
        outcome.requests += offered
        outcome.refused += refused
        outcome.late += offered - refused if waiting / (ready * cluster.rate) > objective_s else 0.0
        outcome.replica_hours += (ready + len(starting)) * TICK_S / 3600
        scaler.observe(now, Tick(offered, served, refused, waiting, ready))
        if _is_due(now, cluster.sync_s):
            current = ready + len(starting)
            wish = scaler.desired(now, current)
            outcome.changes += wish != current
            starting.extend([now + cluster.start_s] * max(0, wish - current))
            for _ in range(current - wish):  # those that do not serve yet go first
                ready -= not (starting and starting.pop())
    return outcome
