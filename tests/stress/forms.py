"""Two forms of one test: a short one for `make test`, and one of minutes for `make stress`."""

from __future__ import annotations

from typing import Any

import pytest


def forms(short: tuple[Any, ...], long: tuple[Any, ...], limit_s: int = 900) -> list[Any]:
    """Return the values of both forms; `limit_s` is how long the long one may take."""
    marks = [pytest.mark.stress, pytest.mark.timeout(limit_s)]
    return [pytest.param(*short, id="short"), pytest.param(*long, id="long", marks=marks)]
