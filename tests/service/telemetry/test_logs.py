"""Log lines are JSON and reach stderr; if they cannot, nothing else is affected."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.telemetry.logs import REQUEST_ID, TRACE_ID, configure_logs, log_request
from tests.running import Service


@pytest.fixture
def configure(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[str], None]]:
    """Return what configures the logs of this process, which are restored at the end."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    handlers, level, servers = root.handlers[:], root.level, uvicorn.level
    root.handlers.clear()  # those of pytest, which configuring would close
    capsys.readouterr()
    yield configure_logs
    root.handlers[:] = handlers
    root.setLevel(level)
    uvicorn.setLevel(servers)


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines of stderr."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_answered_request_is_one_line(configure: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """It has the time, what was answered and how fast, and the ids of the request and its trace."""
    configure("info")
    request, trace = REQUEST_ID.set("mine"), TRACE_ID.set("trace")
    log_request("GET", "/models", 200, 0.00123)
    TRACE_ID.reset(trace)
    log_request("GET", "/models", 404, 0.001)
    logging.getLogger("cogan.requests").error("failed")  # of the same request
    REQUEST_ID.reset(request)
    first, second, third = written(capsys)
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "cogan.access",
        "message": "GET /models 200",
        "request_id": "mine",
        "trace_id": "trace",
        "method": "GET",
        "route": "/models",
        "status": 200,
        "duration_ms": 1.23,
    }
    assert (second["request_id"], "trace_id" in second) == ("mine", False)
    assert (third["request_id"], third["time"] >= second["time"]) == ("mine", True)


def test_an_exception_is_in_its_line(configure: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not break the format of one object a line, nor does an extra that is no JSON."""
    configure("info")
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("cogan.requests").exception("failed", extra={"path": Path("x")})
    (line,) = written(capsys)
    assert (line["message"], line["path"], line["level"]) == ("failed", "x", "error")
    assert "ValueError: broken" in line["exception"]


def test_a_full_disk_costs_only_lines(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If stderr cannot be written, lines are lost; later ones are written."""
    configure("info")

    def refuse(_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "write", refuse)
        log_request("GET", "/models", 200, 0.001)
    log_request("GET", "/models", 404, 0.001)
    assert [line["status"] for line in written(capsys)] == [404]


def test_a_level_above_info_has_no_line_for_each_request(
    configure: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """At `warning` there are only warnings and errors."""
    configure("warning")
    log_request("GET", "/models", 200, 0.001)
    logging.getLogger("cogan.models").warning("refused")
    assert [line["message"] for line in written(capsys)] == ["refused"]


def test_the_last_lines_are_written_at_the_end(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """A service that is stopped right after a response has written its line."""
    tiny_model()
    service = start()
    httpx.get(f"{service.url}/models", headers={"x-request-id": "last"})
    service.process.terminate()
    assert service.process.wait(20) == 0
    assert service.wait_for(lambda line: line.get("request_id") == "last")["route"] == "/models"
