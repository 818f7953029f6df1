"""A request may be less patient than the service."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/generate", "/v2/models/tiny/infer"])
async def test_a_request_says_how_long_it_waits(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], path: str
) -> None:
    """`X-Request-Timeout` shortens the deadline and never lengthens it; a wrong one is refused."""
    tiny_model(turns=400_000)
    client = connect(deadline_s=0.2)
    latents = {"name": "latent", "shape": [1, 8], "datatype": "FP32", "data": [0] * 8}
    body: dict[str, Any] = {"inputs": [latents]} if "infer" in path else {"latents": [[0] * 8]}
    for wish, least, most in (("0.05", 0.04, 0.2), ("1e9", 0.19, 0.4)):
        start = time.monotonic()
        answer = await client.post(path, json=body, headers={"x-request-timeout": wish})
        assert answer.status_code == 504
        assert least < time.monotonic() - start < most
    for wish in ("soon", "0", "-1", "nan"):
        answer = await client.post(path, json=body, headers={"x-request-timeout": wish})
        assert answer.status_code == 422
        wrong = {"place": "header", "pointer": "/x-request-timeout", "value": wish}
        assert answer.json()["errors"] == [wrong | {"allowed": "seconds, above 0"}]
