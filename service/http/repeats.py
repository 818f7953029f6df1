"""Questions that were answered before: a repeat, known by its bytes, is neither routed nor parsed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.types import Message, Scope

from service.cache import AnswerCache
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import trace_route

MOST_KNOWN = 4096
LONGEST_QUESTION = 1024  # bytes
QUESTION = "cogan.question"  # the key of a scope that holds what can be known again
Headers = list[tuple[bytes, bytes]]
Question = tuple[str, str, bytes, bytes, bytes, bytes]


class Known(NamedTuple):
    """What is known of a question: its route, the key of its answer, and the headers of 200 and of 304.

    Without headers of 304 its answer is 200, on whatever condition it is asked.
    """

    route: Any
    key: str
    headers: Headers
    unchanged: Headers


class Repeats:
    """Answers repeats from the cache, or with 304, while the same models are served."""

    def __init__(self, answers: AnswerCache, changes: Callable[[], int], metrics: Metrics) -> None:
        """Take `changes` for the number of times that what is served has changed."""
        self._answers, self._changes, self._metrics = answers, changes, metrics
        self._known: OrderedDict[Question, Known] = OrderedDict()
        self._seen = changes()

    def remember(self, scope: Scope, key: str, headers: Headers, unchanged: Headers) -> None:
        """Note a question whose answer never changes, and the headers of its answer: 200, and 304."""
        if QUESTION not in scope:
            return
        self._forget_if_changed()
        headers = [header for header in headers if header[0] != b"content-length"]
        self._known[scope[QUESTION]] = Known(scope["route"], key, headers, unchanged)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def answer(
        self, scope: Scope, headers: dict[bytes, bytes], body: bytes
    ) -> tuple[Message, Message] | None:
        """Return what to send for a repeat; None for what is no repeat, or whose answer is not kept."""
        if (question := _question(scope, headers, body)) is None:
            return None
        scope[QUESTION] = question
        self._forget_if_changed()
        if (known := self._known.get(question)) is None:
            return None
        self._known.move_to_end(question)
        condition = headers.get(b"if-none-match", b"").decode("latin-1")
        if known.unchanged and matches(condition, known.key):
            status, content, sent = 304, b"", known.unchanged
        elif (kept := self._answers.get(known.key)) is not None:
            self._metrics.cache_hits.inc()
            status, content, sent = 200, kept, [*known.headers, (b"content-length", b"%d" % len(kept))]
        else:
            return None
        scope["route"] = known.route  # as routing would have it
        trace_route(scope["method"], known.route.path)
        start = {"type": "http.response.start", "status": status, "headers": sent}
        return start, {"type": "http.response.body", "body": content}

    def _forget_if_changed(self) -> None:
        if self._seen != (changes := self._changes()):
            self._seen = changes
            self._known.clear()


def matches(if_none_match: str, key: str) -> bool:
    """Say whether a header names the entity tag of a key, strong or weak, or any."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return f'"{key}"' in tags or "*" in tags


def first_of_each(headers: Headers) -> dict[bytes, bytes]:
    """Return a request's headers by name: of several lines the first, which Starlette takes, too."""
    return dict(reversed(headers))


def _question(scope: Scope, headers: dict[bytes, bytes], body: bytes) -> Question | None:
    """Return all that an answer hangs on; None where that is long.

    Who says how long it waits may say it wrongly, and is left to the route that knows.
    """
    accept, kind = headers.get(b"accept", b""), headers.get(b"content-type", b"")
    length = len(scope["query_string"]) + len(body) + len(accept) + len(kind)
    if b"x-request-timeout" in headers or length > LONGEST_QUESTION:
        return None
    return scope["method"], scope["path"], scope["query_string"], body, accept, kind
