"""What only this service does: answers from its cache, 304s, and many pairs in one answer."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import urlopen

from tests.benchmarks.serving.load import Load, Question
from tests.benchmarks.serving.servers import Server, ask

PAIRS = 64  # COGAN_MAX_PAIRS as it comes
KNOWN_SEEDS = 100
BY_QUERY = "/generate?seed=7"


def extras(server: Server, seconds: int) -> Iterator[tuple[str, Load, Question]]:
    """Yield a name, a load and a question for each; the cache holds what is repeated."""
    yield "repeated seeds", Load(32, seconds), _repeats(server)
    yield "If-None-Match", Load(32, seconds), Question("GET", BY_QUERY, "", _etag(server), seeds=1, first=7)
    for form in ("png", "npz"):
        body = f'{{"seed":%d,"count":{PAIRS},"format":"{form}"}}'
        for connections in (1, 4):
            yield f"{PAIRS} pairs as {form}", Load(connections, seconds), Question(body=body, pairs=PAIRS)


def _repeats(server: Server) -> Question:
    for seed in range(KNOWN_SEEDS):
        ask(f"{server.url}/generate", b'{"seed":%d}' % seed)
    return Question(seeds=KNOWN_SEEDS, first=0)


def _etag(server: Server) -> str:
    """Return the validator of an answer, having seen that it is honoured."""
    with urlopen(server.url + BY_QUERY, timeout=30) as answer:
        etag: str = answer.headers["ETag"]
    if (status := ask(server.url + BY_QUERY, headers={"If-None-Match": etag})[0]) != 304:
        raise RuntimeError(f"{BY_QUERY} with its ETag was answered with {status}, not 304")
    return etag
