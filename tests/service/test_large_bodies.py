"""A body as large as may be costs no more than a small one."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "field", "item", "pointer"),
    [
        ("/generate", "seeds", '""', "/seeds/0"),
        ("/generate", "latents", '""', "/latents/0"),
        ("/generate", "domains", "7", "/domains/0"),
        ("/generate", "domains", '"edge"', "/domains/1"),
        ("/interpolate", "keyframes", "{}", "/keyframes/0"),
        ("/v2/models/tiny/infer", "outputs", "7", "/outputs/0"),
    ],
)
async def test_of_a_million_wrong_items_the_first_are_told(
    client: httpx.AsyncClient, path: str, field: str, item: str, pointer: str
) -> None:
    """A body of the largest size gets no answer many times as long."""
    content = f'{{"{field}":[{",".join([item] * (1_000_000 // (len(item) + 1)))}]}}'
    answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    pointers = [wrong["pointer"] for wrong in answer.json()["errors"]]
    assert pointer in pointers
    assert len(pointers) <= 3
