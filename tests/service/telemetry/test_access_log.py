"""The lines of answered requests reach stderr, or nothing does harm."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.telemetry.access_log import WRITE_AFTER_S, AccessLog
from tests.running import Service

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> AccessLog:
    """Return a log that is on."""
    caplog.set_level(logging.INFO, "cogan.access")
    return AccessLog()


async def test_lines_are_written_together(log: AccessLog, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written at once, and all of it a moment later, in order."""
    for status in (200, 404, 500):
        log.add("GET", "/models", status, 0.00123)
    assert capsys.readouterr().err == ""
    await asyncio.sleep(2 * WRITE_AFTER_S)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["status"] for line in lines] == [200, 404, 500]
    assert lines[0]["duration_ms"] == 1.23


async def test_a_full_disk_costs_lines_alone(
    log: AccessLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where stderr takes nothing, lines are lost; later ones are written."""

    def refuse(_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "write", refuse)
        log.add("GET", "/models", 200, 0.001)
        log.write()
    log.add("GET", "/models", 404, 0.001)
    log.write()
    assert json.loads(capsys.readouterr().err)["status"] == 404


async def test_a_level_above_info_has_no_lines(
    log: AccessLog, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """At `warning` there is no line for each request."""
    caplog.set_level(logging.WARNING, "cogan.access")
    log.add("GET", "/models", 200, 0.001)
    log.write()
    assert capsys.readouterr().err == ""


def test_the_last_lines_are_written_at_the_end(
    tiny_model: Callable[..., Path], start: Callable[..., Service]
) -> None:
    """A service that is ended right after an answer has written its line."""
    tiny_model()
    service = start()
    httpx.get(f"{service.url}/models", headers={"x-request-id": "last"})
    service.process.terminate()
    assert service.process.wait(20) == 0
    assert service.wait_for(lambda line: line.get("request_id") == "last")["route"] == "/models"
