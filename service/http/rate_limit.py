"""How often somebody may ask: a token bucket for each, kept as the one moment when it is full again."""

from __future__ import annotations

MANY = 10_000  # buckets, from which on full ones are dropped


class RateLimit:
    """Lets `burst` requests through at once and `rate` a second in the long run, for each name."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval_s, self._burst = 1 / rate, burst
        self._full_at: dict[str, float] = {}
        self._sweep_at = MANY

    def wait(self, name: str, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one again."""
        full_at = max(now, self._full_at.get(name, now)) + self._interval_s
        late = full_at - now - self._burst * self._interval_s
        if late > 1e-9:
            return late
        self._full_at[name] = full_at
        if len(self._full_at) > self._sweep_at:
            self._sweep(now)
        return 0.0

    def _sweep(self, now: float) -> None:
        """Drop the buckets that are full: without them everything is as with them."""
        self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = max(MANY, 2 * len(self._full_at))
