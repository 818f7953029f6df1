"""The cache of answers is bounded in bytes."""

from __future__ import annotations

from service.cache import ENTRY_OVERHEAD, AnswerCache


def test_least_recently_used_answers_go_first() -> None:
    """A third answer that does not fit drops the one unused for longest."""
    cache = AnswerCache(2 * (10 + ENTRY_OVERHEAD))
    cache.put("old", b"0" * 10)
    cache.put("new", b"1" * 10)
    assert cache.get("old") is not None
    cache.put("newest", b"2" * 10)
    assert (cache.get("new"), cache.get("old"), cache.get("newest")) == (None, b"0" * 10, b"2" * 10)


def test_answers_larger_than_the_cache_are_not_kept() -> None:
    """One huge answer does not empty the cache."""
    cache = AnswerCache(100 + ENTRY_OVERHEAD)
    cache.put("small", b"0")
    cache.put("huge", b"0" * 101)
    assert (cache.get("small"), cache.get("huge")) == (b"0", None)


def test_putting_twice_counts_once() -> None:
    """The same answer put again, as two requests at once do, takes its room once."""
    cache = AnswerCache(2 * (10 + ENTRY_OVERHEAD))
    for _ in range(5):
        cache.put("a", b"0" * 10)
    cache.put("b", b"1" * 10)
    assert cache.get("a") is not None
