"""How long a request may wait: the setting, or less where the request says so."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from starlette.requests import Request

from service.errors import FieldError, InvalidRequest

TIMEOUT = "X-Request-Timeout"
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT,
    "in": "header",
    "required": False,
    "description": "Seconds after which the answer is of no use; it shortens the deadline that is set.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def deadline(request: Request, longest_s: float) -> float:
    """Return the moment in the event loop's time by which images must be drawn. Raises InvalidRequest."""
    wish = request.headers.get(TIMEOUT)
    return asyncio.get_running_loop().time() + (longest_s if wish is None else min(longest_s, _seconds(wish)))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        wrong = FieldError(f"/{TIMEOUT.lower()}", text, "seconds, above 0", "header")
        raise InvalidRequest(f"{TIMEOUT}: {wrong.allowed}", [wrong])
    return seconds
