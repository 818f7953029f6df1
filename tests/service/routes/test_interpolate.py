"""/interpolate leads from image to image."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.anyio


async def frames(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """Ask for the frames of a body."""
    answer = await client.post("/interpolate", json=body)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["frames"]
    return found


async def test_ends_are_the_images_of_the_seeds(client: httpx.AsyncClient) -> None:
    """The first and the last frame are what /generate draws, byte for byte."""
    found = (await client.get("/interpolate?from=1&to=2&steps=5")).json()["frames"]
    assert [frame["t"] for frame in found] == [0, 0.25, 0.5, 0.75, 1]
    pairs = (await client.get("/generate?seeds=1&seeds=2")).json()["pairs"]
    assert [found[0]["images"], found[-1]["images"]] == [pair["images"] for pair in pairs]


async def test_get_and_post_answer_alike(client: httpx.AsyncClient) -> None:
    """Two seeds by query are two key frames in a body."""
    by_query = await client.get("/interpolate?from=1&to=2&steps=4&loop=true&method=lerp")
    by_body = {"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 4, "loop": True, "method": "lerp"}
    assert by_query.content == (await client.post("/interpolate", json=by_body)).content


async def test_key_frames_may_be_many_and_latents(client: httpx.AsyncClient) -> None:
    """Seeds, their further images, and given latents mix; each is met at its whole t."""
    npz = np.load(io.BytesIO((await client.get("/generate?seed=9&format=npz")).content))
    keyframes = [{"seed": 1, "index": 3}, {"latent": npz["latent"][0].tolist()}, {"seed": 2}]
    found = await frames(client, keyframes=keyframes, steps=3)
    assert [frame["t"] for frame in found] == [0, 0.5, 1, 1.5, 2]
    first = (await client.get("/generate?seed=1&count=4")).json()["pairs"][3]
    second = (await client.get("/generate?seed=9")).json()["pairs"][0]
    assert [found[0]["images"], found[2]["images"]] == [first["images"], second["images"]]


async def test_methods_differ_and_the_prior_chooses(client: httpx.AsyncClient) -> None:
    """A normal prior is interpolated spherically unless asked otherwise."""
    ways = {}
    for method in ("slerp", "lerp", None):
        asked = {"method": method} if method else {}
        ways[method] = await frames(client, keyframes=[{"seed": 1}, {"seed": 2}], steps=3, **asked)
    assert ways[None] == ways["slerp"] != ways["lerp"]


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
async def test_animations_have_every_frame(client: httpx.AsyncClient, form: str) -> None:
    """An animation repeats, and shows the domains side by side, frame by frame."""
    answer = await client.get("/interpolate?from=1&to=2&steps=6", headers={"accept": f"image/{form}"})
    assert answer.headers["content-type"] == f"image/{form}"
    image = Image.open(io.BytesIO(answer.content))
    assert (image.size, getattr(image, "n_frames", 1)) == ((15, 10), 6)
    assert image.info["loop"] == 0


@pytest.mark.parametrize("form", ["zip", "npz"])
async def test_archives_have_every_frame(client: httpx.AsyncClient, form: str) -> None:
    """The frames as separate images are numbered in order."""
    answer = await client.get(f"/interpolate?from=1&to=2&steps=3&domains=digit&format={form}")
    content = np.load(io.BytesIO(answer.content))
    names = (
        ["00000/digit.png", "00001/digit.png", "00002/digit.png"] if form == "zip" else ["digit", "latent"]
    )
    assert content.files == names


async def test_it_is_conditional_as_well(client: httpx.AsyncClient) -> None:
    """A known interpolation is 304."""
    etag = (await client.get("/interpolate?from=1&to=2")).headers["etag"]
    answer = await client.get("/interpolate?from=1&to=2", headers={"if-none-match": etag})
    assert answer.status_code == 304
    assert (await client.get("/interpolate?from=2&to=1")).headers["etag"] != etag


@pytest.mark.parametrize(
    ("keyframes", "steps", "pointer", "value"),
    [(2, 300, "/steps", 300), (300, 2, "/keyframes", "300 key frames")],
)
async def test_too_many_frames_point_at_what_can_be_less(
    client: httpx.AsyncClient, keyframes: int, steps: int, pointer: str, value: Any
) -> None:
    """Steps where they are the cause; key frames where even two steps between them are too many."""
    body = {"keyframes": [{"seed": seed} for seed in range(keyframes)], "steps": steps}
    answer = await client.post("/interpolate", json=body)
    assert answer.status_code == 413
    (wrong,) = answer.json()["errors"]
    assert (wrong["pointer"], wrong["value"]) == (pointer, value)
    assert "at most 256" in wrong["allowed"]
    assert answer.json()["detail"].endswith(f"ask for fewer {pointer[1:]}")
