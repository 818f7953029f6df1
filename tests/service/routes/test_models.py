"""/models tells what is served and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.anyio


async def test_list_has_the_served_and_the_refused(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """An operator sees which file was refused, and why."""
    tiny_model(name="ant")
    tiny_model(name="bad").write_bytes(b"junk")
    listed = (await connect().get("/models")).json()
    assert listed["default"] == "ant"
    assert [card["name"] for card in listed["models"]] == ["ant"]
    assert listed["refused"][0]["path"] == "bad/1/model.onnx"
    assert "cannot read the file" in listed["refused"][0]["reason"]


async def test_card_has_the_metadata_and_the_digest(client: httpx.AsyncClient) -> None:
    """A model's card has its measured quality, and the digest that its answers have."""
    card = (await client.get("/models/tiny")).json()
    assert card["quality"] == {"pixel_agreement": 0.96}
    assert card["prior"] == {"distribution": "normal", "latent_dim": 8}
    assert card["provider"] == "cpu"
    assert card["digest"] == (await client.get("/generate?seed=1")).json()["digest"]


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "..%2ftiny", "%00", "Tiny"])
async def test_unknown_names_are_answered_with_the_known(client: httpx.AsyncClient, name: str) -> None:
    """No name leads out of the folder: it is looked up among the names, not in it."""
    answer = await client.get(f"/models/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("unknown_model", "unknown_path")
