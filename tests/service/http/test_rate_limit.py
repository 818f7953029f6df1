"""The token bucket keeps its word: so many at once, so many a second, and a wait that is enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.http.rate_limit import MANY, RateLimit


@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 10), max_size=80))
def test_what_is_let_through_is_bounded_and_the_wait_is_true(
    rate: float, burst: int, pauses: list[float]
) -> None:
    """No more pass than the burst and what the rate brings; after the wait one does, not before."""
    limit, now = RateLimit(rate, burst), 0.0
    for passed, pause in enumerate(pauses, 1):
        now += pause
        wait = limit.wait("me", now)
        if wait:
            assert limit.wait("me", now + wait * 0.9) > 0
            now += wait + 1e-6
            assert limit.wait("me", now) == 0
        assert passed <= burst + now * rate + 1e-3


def test_each_has_its_own_bucket() -> None:
    """One who asks too much takes nothing from others."""
    limit = RateLimit(1, 2)
    assert [bool(limit.wait(name, 0.0)) for name in ("me", "me", "me", "you")] == [False, False, True, False]


def test_full_buckets_are_forgotten() -> None:
    """A million addresses that came once take no memory for ever; one that must wait still must."""
    limit = RateLimit(1, 1)
    for i in range(3 * MANY):
        limit.wait(str(i), i * 0.01)
    assert len(limit._full_at) <= MANY + 1
    now = 3 * MANY * 0.01
    limit.wait("me", now)
    limit._sweep(now)
    assert limit.wait("me", now) > 0
