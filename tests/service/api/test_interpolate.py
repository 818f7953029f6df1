"""/interpolate returns frames between images, within a bounded cost."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.generation import images
from service.generation.images import Encoding, Pixels
from tests.running import START, listening

pytestmark = pytest.mark.anyio
LARGE = {"day": (256, 256, 3), "night": (256, 256, 3)}
LONG = "/interpolate?model=large&from=1&to=2&steps=20&format=gif"  # seconds of encoding, within the limit


async def frames(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """Request the frames of a body."""
    response = await client.post("/interpolate", json=body)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["frames"]
    return found


async def test_ends_are_the_images_of_the_seeds(client: httpx.AsyncClient) -> None:
    """The first and the last frame are the images of /generate, byte for byte."""
    found = (await client.get("/interpolate?from=1&to=2&steps=5")).json()["frames"]
    assert [frame["t"] for frame in found] == [0, 0.25, 0.5, 0.75, 1]
    pairs = (await client.get("/generate?seeds=1&seeds=2")).json()["pairs"]
    assert [found[0]["images"], found[-1]["images"]] == [pair["images"] for pair in pairs]


async def test_get_and_post_give_equal_bytes(client: httpx.AsyncClient) -> None:
    """Two seeds by query are two key frames in a body."""
    by_query = await client.get("/interpolate?from=1&to=2&steps=4&loop=true&method=lerp")
    by_body = {"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 4, "loop": True, "method": "lerp"}
    assert by_query.content == (await client.post("/interpolate", json=by_body)).content


async def test_key_frames_may_be_many_and_latents(client: httpx.AsyncClient) -> None:
    """Seeds, their further images, and given latents mix; each is the frame at a whole t."""
    npz = np.load(io.BytesIO((await client.get("/generate?seed=9&format=npz")).content))
    keyframes = [{"seed": 1, "index": 3}, {"latent": npz["latent"][0].tolist()}, {"seed": 2}]
    found = await frames(client, keyframes=keyframes, steps=3)
    assert [frame["t"] for frame in found] == [0, 0.5, 1, 1.5, 2]
    first = (await client.get("/generate?seed=1&count=4")).json()["pairs"][3]
    second = (await client.get("/generate?seed=9")).json()["pairs"][0]
    assert [found[0]["images"], found[2]["images"]] == [first["images"], second["images"]]


async def test_truncation_is_of_seeds(client: httpx.AsyncClient) -> None:
    """Given latents stay as they are: with them alone it would be ignored, so it is refused."""
    given, body = {"latent": [0.0] * 8}, {"steps": 2, "truncation": 0.5}
    refused = await client.post("/interpolate", json=body | {"keyframes": [given, given]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "no key frame has a seed" in refused.text
    assert (await client.post("/interpolate", json=body | {"keyframes": [given, {"seed": 1}]})).status_code == 200


async def test_methods_differ_and_the_prior_chooses(client: httpx.AsyncClient) -> None:
    """A normal prior is interpolated spherically unless a method is given."""
    ways = {}
    for method in ("slerp", "lerp", None):
        given = {"method": method} if method else {}
        ways[method] = await frames(client, keyframes=[{"seed": 1}, {"seed": 2}], steps=3, **given)
    assert ways[None] == ways["slerp"] != ways["lerp"]


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
async def test_animations_have_every_frame(client: httpx.AsyncClient, form: str) -> None:
    """An animation repeats, and shows the domains side by side, frame by frame."""
    for scale in (1, 4):
        url = f"/interpolate?from=1&to=2&steps=6&scale={scale}"
        response = await client.get(url, headers={"accept": f"image/{form}"})
        assert response.headers["content-type"] == f"image/{form}"
        image = Image.open(io.BytesIO(response.content))
        assert (image.size, getattr(image, "n_frames", 1)) == ((15 * scale, 10 * scale), 6)
        assert image.info["loop"] == 0


@pytest.mark.parametrize("form", ["zip", "npz"])
async def test_archives_have_every_frame(client: httpx.AsyncClient, form: str) -> None:
    """The frames as separate images are numbered in order."""
    response = await client.get(f"/interpolate?from=1&to=2&steps=3&domains=digit&format={form}")
    content = np.load(io.BytesIO(response.content))
    names = ["00000/digit.png", "00001/digit.png", "00002/digit.png"] if form == "zip" else ["digit", "latent"]
    assert content.files == names


async def test_a_known_interpolation_is_304(client: httpx.AsyncClient) -> None:
    """An interpolation has an ETag, and a client that sends it back gets 304."""
    etag = (await client.get("/interpolate?from=1&to=2")).headers["etag"]
    response = await client.get("/interpolate?from=1&to=2", headers={"if-none-match": etag})
    assert response.status_code == 304
    assert (await client.get("/interpolate?from=2&to=1")).headers["etag"] != etag


@pytest.mark.parametrize(
    ("body", "pointer", "allowed"),
    [
        ({"keyframes": 2, "steps": 300}, "/steps", "at most 256"),
        ({"keyframes": 300, "steps": 2}, "/keyframes", "at most 256"),
        ({"keyframes": 100, "steps": 4}, "/steps", "at most 256 frames in one response"),
        ({"keyframes": 129, "steps": 3, "loop": True}, "/steps", "at most 256 frames in one response"),
    ],
)
async def test_too_many_frames_are_pointed_at(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str, allowed: str
) -> None:
    """Over a limit of its own a field is 413; so are steps whose frames between all key frames are too many."""
    keyframes = [{"seed": seed} for seed in range(body["keyframes"])]
    response = await client.post("/interpolate", json=body | {"keyframes": keyframes})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    (wrong,) = response.json()["errors"]
    assert (wrong["pointer"], wrong["allowed"]) == (pointer, allowed)


async def test_only_generators_interpolate(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """A classifier's name is 404, which names the generators."""
    tiny_model(name="a_reader", kind="classifier")
    tiny_model()
    response = await connect().get("/interpolate?from=1&to=2&model=a_reader")
    assert (response.status_code, response.json()["errors"][0]["allowed"]) == (404, ["tiny"])


async def computed(client: httpx.AsyncClient) -> dict[str, float]:
    """Return the counts of images computed, and of GIFs encoded, also of those that were stopped."""
    lines = [line.rpartition(" ") for line in (await client.get("/metrics")).text.splitlines()]
    wanted = {
        "images": 'cogan_samples_total{model="large"}',
        "gifs": 'cogan_encode_duration_seconds_count{format="gif"}',
    }
    values = {name: float(value) for name, _, value in lines if name in wanted.values()}
    return {short: values.get(name, 0.0) for short, name in wanted.items()}


@pytest.fixture
def large(sized_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    """Return a client of an app with a model of large colour images, and one of small ones."""
    sized_model(LARGE, "large")
    sized_model({"digit": (8, 6, 1)}, "small")
    return connect(default_model="large", cache_bytes=0, deadline_s=60)


async def test_a_costly_animation_is_refused_before_work_starts(large: httpx.AsyncClient) -> None:
    """An animation over the bound on pixels is 413 at once, which names the bound and the cheaper formats."""
    begun = time.monotonic()
    response = await large.get("/interpolate?from=1&to=2&steps=256&format=gif")
    assert time.monotonic() - begun < 5
    problem = response.json()
    assert (problem["status"], problem["code"], problem["errors"][0]["pointer"]) == (413, "too_large", "/format")
    assert str(2**25) in problem["detail"]
    assert problem["errors"][0]["allowed"] == ["json", "png", "zip", "npz"]
    assert (await computed(large))["images"] == 0


async def test_the_format_decides_what_a_pixel_costs(large: httpx.AsyncClient) -> None:
    """As many frames as are refused as a GIF are sent in a cheaper format."""
    refused = await large.get("/interpolate?from=1&to=2&steps=40&format=gif")
    allowed = await large.get("/interpolate?from=1&to=2&steps=40&format=npz")
    assert (refused.status_code, allowed.status_code) == (413, 200)


async def test_others_are_answered_while_an_animation_is_encoded(large: httpx.AsyncClient) -> None:
    """Health and another model's images do not wait for a large animation of an allowed size."""
    encoding = asyncio.create_task(large.get(LONG))
    waits, during = [], 0
    for seed in range(20):
        await asyncio.sleep(0.03)
        begun = time.monotonic()
        assert (await large.get("/livez")).status_code == 200
        assert (await large.get(f"/generate?model=small&seed={seed}")).status_code == 200
        waits.append(time.monotonic() - begun)
        during += not encoding.done()
    assert during > 2
    assert sorted(waits)[len(waits) // 2] < 0.3
    assert max(waits) < 10
    response = await encoding
    assert response.status_code == 200
    assert getattr(Image.open(io.BytesIO(response.content)), "n_frames", 1) == 20


class HaltedGif:
    """Encodes GIFs, halts in the second frame until `go_on` is set, and counts the frames."""

    def __init__(self, encode: Callable[[Iterable[Pixels]], Encoding]) -> None:
        self.frames, self.go_on, self._encode = 0, threading.Event(), encode

    def __call__(self, frames: Iterable[Pixels]) -> Encoding:
        """Encode frames as `encode` does."""
        return self._encode(map(self._count, frames))

    def _count(self, frame: Pixels) -> Pixels:
        self.frames += 1
        assert self.frames != 2 or self.go_on.wait(START)
        return frame


@pytest.fixture
def halted_gif(monkeypatch: pytest.MonkeyPatch) -> Iterator[HaltedGif]:
    """Return what halts the first GIF that is encoded."""
    halted = HaltedGif(images.gif)
    monkeypatch.setattr(images, "gif", halted)
    yield halted
    halted.go_on.set()


async def frames_encoded(client: httpx.AsyncClient, gif: HaltedGif) -> int:
    """Let the encoding go on, and return of how many frames it was when it has ended."""
    gif.go_on.set()
    async with asyncio.timeout(START):
        while not (await computed(client))["gifs"]:
            await asyncio.sleep(0.02)
    return gif.frames


async def test_a_short_timeout_stops_the_encoding(large: httpx.AsyncClient, halted_gif: HaltedGif) -> None:
    """A request that is late gets 504, and what it had encoded is all that is encoded of it."""
    response = await large.get(LONG, headers={"X-Request-Timeout": "2"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert await frames_encoded(large, halted_gif) == 2


async def test_a_client_that_leaves_stops_the_encoding(
    sized_model: Callable[..., Path], models_dir: Path, halted_gif: HaltedGif
) -> None:
    """When the connection is closed, the animation of its request is not encoded to the end."""
    sized_model(LARGE, "large")
    async with (
        listening(models_dir, deadline_s=START) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=START) as client,
        asyncio.timeout(START),
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {LONG} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while halted_gif.frames < 2:
            await asyncio.sleep(0.02)
        writer.close()
        while 'cogan_rejected_total{reason="cancelled"} 1.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.02)
        assert await frames_encoded(client, halted_gif) == 2
