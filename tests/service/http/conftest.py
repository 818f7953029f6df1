"""A models folder with a model, for the tests that use real sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def folder(tiny_model: Callable[..., Path], models_dir: Path) -> Path:
    """Return a models folder with a model."""
    tiny_model()
    return models_dir
