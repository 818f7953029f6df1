"""What a model has done since it was opened, counted as the Open Inference Protocol tells it; its pace."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass
class Span:
    """How often something happened, and the seconds that it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds

    def join(self, other: Span) -> None:
        """Count what another has counted, too."""
        self.count += other.count
        self.seconds += other.seconds


@dataclass
class Statistics:
    """Counts of requests and of runs; only the event loop changes them."""

    success: Span = field(default_factory=Span)  # requests answered
    fail: Span = field(default_factory=Span)  # requests refused, too late, abandoned or failed
    queue: Span = field(default_factory=Span)  # waits of those answered
    infer: Span = field(default_factory=Span)  # what was left of their time
    runs: dict[int, Span] = field(default_factory=dict)  # by latents in a run
    last_run: float = 0.0  # seconds since 1970

    @property
    def latents(self) -> int:
        """Latents drawn."""
        return sum(size * span.count for size, span in self.runs.items())

    def answered(self, seconds: float, waited: float) -> None:
        """Count a request that was drawn."""
        self.success.add(seconds)
        self.queue.add(waited)
        self.infer.add(seconds - waited)

    def ran(self, size: int, seconds: float) -> None:
        """Count a run of `size` latents."""
        self.runs.setdefault(size, Span()).add(seconds)
        self.last_run = time.time()

    def plain(self) -> dict[str, Any]:
        """Return values that JSON can carry."""
        return asdict(self) | {"runs": [(size, asdict(span)) for size, span in self.runs.items()]}

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Self:
        """Build what `plain` returned."""
        spans = {name: Span(**plain[name]) for name in ("success", "fail", "queue", "infer")}
        runs = {size: Span(**span) for size, span in plain["runs"]}
        return cls(**spans, runs=runs, last_run=plain["last_run"])

    def join(self, other: Statistics) -> None:
        """Count what another process has counted, too."""
        for name in ("success", "fail", "queue", "infer"):
            getattr(self, name).join(getattr(other, name))
        for size, span in other.runs.items():
            self.runs.setdefault(size, Span()).join(span)
        self.last_run = max(self.last_run, other.last_run)


class Pace:
    """How long a latent takes; the median, as a run that other processes held up says nothing of the next."""

    def __init__(self) -> None:
        self.latent_seconds = 0.0  # of one latent in the last runs; 0 before the first
        self._recent: deque[float] = deque(maxlen=9)

    def note(self, size: int, seconds: float) -> None:
        """Note a run of `size` latents."""
        self._recent.append(seconds / size)
        self.latent_seconds = sorted(self._recent)[len(self._recent) // 2]
