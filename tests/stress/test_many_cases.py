"""Schemathesis for minutes, with links followed from answer to request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzzing import fuzz
from tests.running import Service


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_thousands_of_cases_find_nothing(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """At least 5,000 cases of every kind: no 5xx, every answer as the OpenAPI document describes it."""
    tiny_model()
    tiny_model(name="reader", kind="classifier", goes_with=("tiny",))
    tiny_model(("digit",), name="zoom", kind="encoder", goes_with=("tiny",))
    assert fuzz(start(model_control=True).url, "--max-examples", "500", "--max-time", "240", limit_s=500) >= 5000
