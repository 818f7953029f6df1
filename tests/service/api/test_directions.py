"""Directions: the images of all domains move along them, the same by every verb, name, format and batch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.conftest import DIRECTIONS, SPREAD, VECTORS

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def client(tiny_model: Callable[..., Path], connect: Connect) -> httpx.AsyncClient:
    """Return a client of a service with a model that has two directions, and one that has none."""
    tiny_model(directions=DIRECTIONS)
    tiny_model(name="plain")
    return connect(default_model="tiny")


async def latents(client: httpx.AsyncClient, path: str, **body: Any) -> np.ndarray[Any, Any]:
    """Return the latents of a response, [B, Z]."""
    response = await client.post(path, json=body | {"format": "npz"})
    assert response.status_code == 200, response.text
    rows: np.ndarray[Any, Any] = np.load(io.BytesIO(response.content))["latent"]
    return rows


async def test_latents_move_by_spreads(client: httpx.AsyncClient) -> None:
    """A step of 2 along a direction of spread 0.5 adds its vector once; steps add up; given latents move, too."""
    before = await latents(client, "/generate", seed=3, count=2)
    after = await latents(client, "/generate", seed=3, count=2, directions={"1": 2, "thickness": -1.5})
    moved = before.astype(np.float64) + 2 * SPREAD * np.array(VECTORS[0]) - 1.5 * SPREAD * np.array(VECTORS[1])
    assert (after == moved.astype(np.float32)).all()
    given = await latents(client, "/generate", latents=before.tolist(), directions={"1": 2, "2": -1.5})
    assert (given == after).all()


async def test_a_walk_moves_as_a_whole(client: httpx.AsyncClient) -> None:
    """Every frame is that of the walk without the directions, moved."""
    walk = {"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 4}
    before = await latents(client, "/interpolate", **walk)
    after = await latents(client, "/interpolate", **walk, directions={"1": -1})
    assert (after == (before - SPREAD * np.array(VECTORS[0])).astype(np.float32)).all()


async def test_equal_requests_have_equal_bytes(client: httpx.AsyncClient) -> None:
    """By name or number, by either verb, in either order, with a step of 0 or without: bytes and ETag are the same."""
    answers = [
        await client.get("/generate", params={"seed": 5, "directions": written})
        for written in ("1:2,thickness:-1", "2:-1,1:2.0")
    ]
    assert answers[0].headers["etag"] == answers[1].headers["etag"]
    body = {"seed": 5, "directions": {"thickness": -1, "1": 2}}
    answers.append(await client.post("/generate", json=body))
    assert len({answer.content for answer in answers}) == 1
    still = await client.get("/generate", params={"seed": 5, "directions": "1:0"})
    plain = await client.get("/generate", params={"seed": 5})
    assert (still.headers["etag"], still.content) == (plain.headers["etag"], plain.content)
    assert plain.headers["etag"] != answers[0].headers["etag"]


async def test_bytes_do_not_depend_on_the_batch(client: httpx.AsyncClient) -> None:
    """A moved pair has the same bytes alone and among others."""
    many = (await client.post("/generate", json={"seeds": [1, 2, 3], "directions": {"1": 1.3}})).json()["pairs"]
    for pair in many:
        alone = await client.post("/generate", json={"seed": pair["seed"], "directions": {"1": 1.3}})
        assert alone.json()["pairs"] == [pair]


async def test_a_random_response_is_found_again(client: httpx.AsyncClient) -> None:
    """Content-Location names the directions, unless they move nothing."""
    for directions in ({"thickness": 0.5}, {"thickness": 0}):
        response = await client.post("/generate", json={"directions": directions})
        again = await client.get("/" + response.headers["content-location"])
        assert again.content == response.content


@pytest.mark.parametrize(
    ("directions", "value", "allowed"),
    [
        ({"3": 1}, "3", ["1", "2", "thickness"]),
        ({"slant": 1}, "slant", ["1", "2", "thickness"]),
        ({"2": 1, "thickness": 1}, "thickness", "once"),
    ],
)
async def test_unknown_directions_are_refused(
    client: httpx.AsyncClient, directions: dict[str, float], value: str, allowed: object
) -> None:
    """The problem names the direction and those that there are."""
    problem = (await client.post("/generate", json={"seed": 1, "directions": directions})).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert problem["errors"] == [{"place": "body", "pointer": "/directions", "value": value, "allowed": allowed}]


async def test_a_model_without_directions_says_so(client: httpx.AsyncClient) -> None:
    """The problem says that the model has none."""
    problem = (await client.get("/generate", params={"model": "plain", "seed": 1, "directions": "1:1"})).json()
    assert "it has no directions" in problem["detail"]


@pytest.mark.parametrize("written", ["1", "1:x", "1:11", "1:1,1:2", ":1", "1:nan", "1:1,"])
async def test_wrong_steps_are_refused(client: httpx.AsyncClient, written: str) -> None:
    """What is no step, too large or repeated in a query is 422, at the field."""
    response = await client.get("/generate", params={"seed": 1, "directions": written})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith("/directions")


async def test_the_card_tells_directions(client: httpx.AsyncClient) -> None:
    """The model's card has vectors, spreads and names."""
    card = (await client.get("/models/tiny")).json()
    assert [one["name"] for one in card["directions"]] == [None, "thickness"]
    assert card["directions"][1]["vector"] == VECTORS[1]
