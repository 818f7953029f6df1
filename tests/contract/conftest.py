"""What the contract tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio alone, as the service does."""
    return "asyncio"
