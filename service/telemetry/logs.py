"""JSON lines on stderr, each with the id of the request that it belongs to."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message", "taskName"}
_access = logging.getLogger("cogan.access")


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601, to the millisecond."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}+00:00"


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id, trace_id, and the record's extras."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; an exception becomes the field `exception`."""
        context = {"request_id": REQUEST_ID.get(), "trace_id": TRACE_ID.get()}
        line: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in context.items() if value is not None},
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in type stubs only
    """Writes to stderr; a full disk costs lines, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            with contextlib.suppress(OSError):
                super().handleError(record)


def configure_logs(level: str) -> None:
    """Send every log line of this process, from `level` up, to stderr as JSON."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))


def log_request(method: str, route: str, status: int, seconds: float) -> None:
    """Log an answered request; the current context has its id and its trace.

    The line has JsonFormatter's form, by hand: nothing in it can need an escape, and it takes a fifth of the time.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    trace = f'"trace_id": "{trace_id}", ' if (trace_id := TRACE_ID.get()) else ""
    with contextlib.suppress(OSError):  # a full disk costs lines, and nothing else
        sys.stderr.write(
            f'{{"time": "{timestamp(time.time())}", "level": "info", "logger": "{_access.name}", '
            f'"message": "{method} {route} {status}", "request_id": "{REQUEST_ID.get()}", {trace}'
            f'"method": "{method}", "route": "{route}", "status": {status}, "duration_ms": {seconds * 1e3:.3f}}}\n'
        )
        sys.stderr.flush()
