"""/models lists what is served and what is refused."""

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
    """A model's card has its measured quality, and the digest that its responses have."""
    card = (await client.get("/models/tiny")).json()
    assert card["quality"] == {"pixel_agreement": 0.96}
    assert card["prior"] == {"distribution": "normal", "latent_dim": 8}
    assert card["provider"] == "cpu"
    assert card["digest"] == (await client.get("/generate?seed=1")).json()["digest"]


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "..%2ftiny", "%00", "Tiny"])
async def test_unknown_names_are_404(client: httpx.AsyncClient, name: str) -> None:
    """No name leads out of the folder: it is looked up among the names, not in it."""
    response = await client.get(f"/models/{name}")
    assert response.status_code == 404
    assert response.json()["code"] in ("unknown_model", "unknown_path")


async def test_every_kind_is_listed_and_only_generators_are_default(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Each card has its kind, with what that kind has: classes of a classifier, the prior of the others."""
    tiny_model(name="a_reader", kind="classifier", goes_with=["c_maker"])
    tiny_model(name="b_encoder", kind="encoder")
    tiny_model(name="c_maker")
    client = connect()
    listed = (await client.get("/models")).json()
    assert listed["default"] == "c_maker"
    reader, encoder, maker = listed["models"]
    assert [card["kind"] for card in listed["models"]] == ["classifier", "encoder", "generator"]
    assert (reader["classes"], reader["prior"], reader["goes_with"]) == (["zero", "one", "two"], None, ["c_maker"])
    assert encoder["prior"] == maker["prior"] == {"distribution": "normal", "latent_dim": 8}
    assert encoder["classes"] == maker["classes"] == []
    assert (await client.get("/models/a_reader")).json() == reader


async def test_without_a_generator_there_is_no_default(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """A classifier is never the model of requests that name none."""
    tiny_model(kind="classifier")
    assert (await connect().get("/models")).json()["default"] is None
