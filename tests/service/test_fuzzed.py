"""Schemathesis finds nothing, in a short form; tests/stress/ has the long one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzzing import fuzz
from tests.running import Service


@pytest.mark.timeout(300)  # seconds, on a busy machine; a tenth otherwise
def test_a_service_does_what_its_document_says(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """Whatever is sent by the OpenAPI document or against it: no 5xx, every answer as described."""
    tiny_model()
    tiny_model(name="reader", kind="classifier", goes_with=("tiny",))
    tiny_model(("digit",), name="zoom", kind="encoder", goes_with=("tiny",))
    assert fuzz(start(model_control=True).url, "--phases", "examples,coverage", limit_s=240) > 300
