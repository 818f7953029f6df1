"""A process that cannot be begun is a loss like one that has ended."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from service.processes.children import Processes
from service.processes.siblings import Siblings

pytestmark = pytest.mark.anyio


async def test_what_cannot_be_begun_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine refuses another process: the log has the cause, and the service is told to end."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    lost, siblings = asyncio.Event(), Siblings()
    processes = Processes(siblings, lambda _: None, partial(siblings.gather, "hang"), lost.set)
    processes.begin(1)
    await asyncio.wait_for(lost.wait(), 10)
    assert "Resource temporarily unavailable" in caplog.text
    await processes.end(1)
