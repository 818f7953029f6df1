"""/generate answers equal requests with equal bytes, in every format."""

from __future__ import annotations

import io
import zipfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.generation.encoding import PAIR_FORMATS
from service.latents import MAX_SEED

pytestmark = pytest.mark.anyio


def pixels(file: bytes | str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode an image file or a data URL."""
    content = b64decode(file.removeprefix("data:image/png;base64,")) if isinstance(file, str) else file
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("domains", [("only",), ("digit", "edge"), ("a", "b", "c"), tuple("abcde")])
async def test_json_has_an_image_of_every_domain(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], domains: tuple[str, ...]
) -> None:
    """With any number of domains, each pair has one PNG of each, in its own size."""
    tiny_model(domains)
    response = (await connect().post("/generate", json={"seed": 7, "count": 2})).json()
    assert (response["model"], response["version"], response["domains"]) == ("tiny", "1", list(domains))
    assert [(pair["seed"], pair["index"]) for pair in response["pairs"]] == [(7, 0), (7, 1)]
    for pair in response["pairs"]:
        shapes = {name: pixels(url).shape[:2] for name, url in pair["images"].items()}
        assert shapes == {name: (8 + 2 * i, 6 + 3 * i) for i, name in enumerate(domains)}


async def test_get_and_post_give_equal_bytes(client: httpx.AsyncClient) -> None:
    """The same request has the same bytes by either method, and an image the same alone or among others."""
    by_query = await client.get("/generate", params={"seeds": [7, 8], "count": 2, "truncation": 0.5})
    by_body = await client.post("/generate", json={"seeds": [7, 8], "count": 2, "truncation": 0.5})
    assert by_query.content == by_body.content
    alone = await client.get("/generate", params={"seed": 8, "truncation": 0.5})
    assert by_query.json()["pairs"][2] == alone.json()["pairs"][0]


async def test_bytes_survive_a_restart(client: httpx.AsyncClient, connect: Callable[..., httpx.AsyncClient]) -> None:
    """Another process of the same model answers with the same bytes, with any threads and batches."""
    first = await client.get("/generate?seed=7&count=20&format=npz")
    other = await connect(threads=1, max_batch=3, cache_bytes=0).get("/generate?seed=7&count=20&format=npz")
    assert first.content == other.content


async def test_domains_come_in_the_requested_order(client: httpx.AsyncClient) -> None:
    """A choice of domains is a choice of order as well."""
    response = (await client.get("/generate?seed=7&domains=edge&domains=digit")).json()
    assert list(response["pairs"][0]["images"]) == response["domains"] == ["edge", "digit"]
    alone = (await client.get("/generate?seed=7&domains=digit")).json()
    assert alone["pairs"][0]["images"]["digit"] == response["pairs"][0]["images"]["digit"]


async def test_given_latents_have_an_index_and_no_seed(client: httpx.AsyncClient) -> None:
    """The latents of a seed, sent back, are the seed's images."""
    npz = await client.get("/generate?seed=7&count=2&format=npz")
    latents = np.load(io.BytesIO(npz.content))["latent"]
    response = (await client.post("/generate", json={"latents": latents.tolist()})).json()
    seeded = (await client.get("/generate?seed=7&count=2")).json()
    assert [pair.get("seed") for pair in response["pairs"]] == [None, None]
    assert [pair["images"] for pair in response["pairs"]] == [pair["images"] for pair in seeded["pairs"]]


@pytest.mark.parametrize("form", ["png", "webp"])
@pytest.mark.parametrize("by", ["format", "accept"])
async def test_sheets_have_rows_of_latents(client: httpx.AsyncClient, form: str, by: str) -> None:
    """A sheet is 3 latents high and 2 domains wide, requested by name or by `Accept`."""
    requested = {"params": {"format": form}} if by == "format" else {"headers": {"accept": f"image/{form}"}}
    params = {"seed": 7, "count": 3} | requested.get("params", {})
    response = await client.get("/generate", params=params, headers=requested.get("headers"))
    assert response.headers["content-type"] == f"image/{form}"
    assert pixels(response.content).shape == (3 * 10, 6 + 9, 3)


@pytest.mark.parametrize("form", ["png", "webp"])
async def test_a_picture_is_scaled(client: httpx.AsyncClient, form: str) -> None:
    """A pixel becomes a square, by GET and by POST; the limit of pixels counts what is sent."""
    once = pixels((await client.get(f"/generate?seed=7&format={form}")).content)
    scaled = await client.get(f"/generate?seed=7&format={form}&scale=3")
    assert np.array_equal(pixels(scaled.content), once.repeat(3, 0).repeat(3, 1))
    assert (await client.post("/generate", json={"seed": 7, "format": form, "scale": 3})).content == scaled.content
    refused = await client.get("/generate?seed=7&count=64&format=png&scale=64")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (413, "/format")
    assert "a smaller scale" in refused.json()["detail"]


@pytest.mark.parametrize("form", ["json", "zip", "npz"])
async def test_only_pictures_are_scaled(client: httpx.AsyncClient, form: str) -> None:
    """Other formats have the images as the model draws them, and the error names those that scale."""
    refused = await client.get(f"/generate?seed=7&format={form}&scale=2")
    assert (refused.status_code, refused.json()["errors"][0]["allowed"]) == (422, "1, or a format of png, webp")
    assert (await client.get(f"/generate?seed=7&format={form}&scale=1")).status_code == 200
    assert (await client.get("/generate?seed=7&format=png&scale=65")).json()["errors"][0]["pointer"] == "/scale"


async def test_archives_hold_the_images_of_the_json(client: httpx.AsyncClient) -> None:
    """A zip has a PNG for every image, an npz an array for every domain, of the same pixels."""
    pairs = (await client.get("/generate?seed=7&count=2")).json()["pairs"]
    zipped = await client.get("/generate?seed=7&count=2&format=zip")
    npz = np.load(io.BytesIO((await client.get("/generate?seed=7&count=2&format=npz")).content))
    assert zipped.headers["content-disposition"] == 'attachment; filename="tiny.zip"'
    assert sorted(npz) == ["digit", "edge", "latent"]
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert len(archive.namelist()) == 4
        for i, pair in enumerate(pairs):
            for name, url in pair["images"].items():
                assert np.array_equal(pixels(archive.read(f"7-{i}/{name}.png")), pixels(url))
                assert np.array_equal(npz[name][i].squeeze(), pixels(url))


@pytest.mark.parametrize("form", ["json", "png", "webp", "zip", "npz"])
async def test_every_format_is_the_same_from_the_cache(client: httpx.AsyncClient, form: str) -> None:
    """A repeated request is answered from the cache, with the same bytes."""
    first = await client.post("/generate", json={"seed": 1, "format": form})
    second = await client.post("/generate", json={"seed": 1, "format": form})
    assert first.content == second.content
    assert "run;dur=" in first.headers["server-timing"]
    assert "cache" in second.headers["server-timing"]


async def test_a_known_response_is_304_without_a_run(client: httpx.AsyncClient) -> None:
    """A GET with a seed has a strong ETag; a client that sends it back gets 304, and nothing is computed."""
    etag = (await client.head("/generate?seed=7")).headers["etag"]
    assert etag.startswith('"')
    before = await computed(client)
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = await client.get("/generate?seed=7", headers={"if-none-match": tag})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert (response.headers["cache-control"], response.headers["vary"]) == ("no-cache", "Accept")
        assert response.headers["server-timing"] == "cache;dur=0.000"
    fresh = await client.get("/generate?seed=987", headers={"if-none-match": etag})
    assert fresh.status_code == 200
    assert await computed(client) == before + 1


async def computed(client: httpx.AsyncClient) -> float:
    """Return how many images were computed."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("cogan_samples_total"))


async def test_etag_names_the_bytes(client: httpx.AsyncClient, connect: Callable[..., httpx.AsyncClient]) -> None:
    """Equal bytes have equal tags in every process, however they are requested; other bytes have others."""
    tags = [
        (await client.get(f"/generate?{query}")).headers["etag"]
        for query in ("seed=7", "seeds=7&count=1&model=tiny&format=json", "seed=7&format=png", "seed=8")
    ]
    assert tags[0] == tags[1] == (await connect().get("/generate?seed=7")).headers["etag"]
    assert len(set(tags)) == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_seed_a_random_one_is_used_and_returned(client: httpx.AsyncClient, method: str) -> None:
    """The response names the URL where it is found again, and is not stored itself."""
    body: dict[str, Any] = {"json": {"count": 2}} if method == "POST" else {"params": {"count": 2}}
    response = await client.request(method, "/generate", **body)
    assert response.headers["cache-control"] == "no-store"
    assert "etag" not in response.headers
    assert 0 <= response.json()["pairs"][0]["seed"] <= MAX_SEED
    again = await client.get(response.headers["content-location"])
    assert again.content == response.content
    other = await client.request(method, "/generate", **body)
    assert other.json()["pairs"][0]["seed"] != response.json()["pairs"][0]["seed"]


async def test_limits_themselves_are_allowed(client: httpx.AsyncClient) -> None:
    """The largest seed and the most pairs are accepted."""
    response = await client.post("/generate", json={"seed": MAX_SEED, "count": 64})
    assert len(response.json()["pairs"]) == 64


async def test_default_model_is_the_first_or_the_one_set(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """A request that names no model has the default one; a request that names one has that."""
    for name in ("ant", "bee"):
        tiny_model(name=name)
    assert (await connect().get("/generate?seed=1")).json()["model"] == "ant"
    client = connect(default_model="bee")
    assert (await client.get("/generate?seed=1")).json()["model"] == "bee"
    assert (await client.get("/generate?seed=1&model=ant")).json()["model"] == "ant"


async def test_a_sheet_too_long_for_its_format_is_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is 413 before anything is computed, and the response names the formats that have room for it."""
    monkeypatch.setitem(PAIR_FORMATS, "webp", replace(PAIR_FORMATS["webp"], max_side=40))
    assert (await client.get("/generate?seed=1&count=4&format=webp")).status_code == 200
    refused = await client.get("/generate?seed=1&count=5&format=webp")
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "at most 40 pixels a side, and this would have 50" in refused.json()["detail"]
    assert refused.json()["errors"][0]["allowed"] == ["json", "png", "zip", "npz"]


async def test_a_query_beside_a_body_is_refused(client: httpx.AsyncClient) -> None:
    """It would be ignored otherwise, so it is 422 and each of its fields is pointed at."""
    response = await client.post("/generate?format=png&count=2", json={"seed": 7})
    assert response.status_code == 422
    wrong = response.json()["errors"]
    assert [(one["place"], one["pointer"]) for one in wrong] == [("query", "/format"), ("query", "/count")]


@pytest.mark.parametrize("path", ["/generate", "/shards/0.tar", "/interpolate?from=1&to=2"])
async def test_a_get_with_a_body_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """Its fields would be ignored, and another pair come back; none at all is fine."""
    response = await client.request("GET", path, json={"seed": 7})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["detail"] == "a GET has no body; send its fields in the query, or use POST"
    assert response.json()["errors"][0]["value"] == "a body of 10 bytes"
    empty = ({"content-length": "0"}, {"transfer-encoding": "chunked"})
    for headers in empty:
        assert (await client.request("GET", "/generate?seed=7", headers=headers)).status_code == 200


async def test_lines_of_a_header_are_one_list(client: httpx.AsyncClient) -> None:
    """Accept and If-None-Match may have several lines (RFC 9110, section 5.3), of which each counts."""
    accepted = [("accept", "text/html"), ("accept", "image/png")]
    sheet = await client.get("/generate?seed=7", headers=accepted)
    assert (sheet.status_code, sheet.headers["content-type"]) == (200, "image/png")
    tags = [("if-none-match", '"another"'), ("if-none-match", sheet.headers["etag"])]
    assert (await client.get("/generate?seed=7", headers=[*accepted, *tags])).status_code == 304


async def test_a_zip_holds_repeated_seeds(client: httpx.AsyncClient) -> None:
    """Every pair of a response has a folder of its own in a zip, also if a seed is given twice."""
    content = (await client.get("/generate?seeds=7&seeds=8&seeds=7&seeds=7&format=zip&domains=digit")).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        assert len(set(names)) == len(names) == 4
        first, other, *repeated = [archive.read(name) for name in names]
        assert names[:2] == ["7-0/digit.png", "8-0/digit.png"]
        assert [part == first for part in (other, *repeated)] == [False, True, True]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_generators_generate(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], method: str
) -> None:
    """A classifier or an encoder is 404, which names the generators, and neither is ever the default model."""
    tiny_model(name="a_reader", kind="classifier")
    tiny_model(name="b_encoder", kind="encoder")
    tiny_model(name="c_maker")
    client, place = connect(), "query" if method == "GET" else "body"
    for name, kind in (("a_reader", "classifier"), ("b_encoder", "encoder")):
        sent = {"seed": 1, "model": name}
        body: dict[str, Any] = {"params": sent} if method == "GET" else {"json": sent}
        response = await client.request(method, "/generate", **body)
        problem = response.json()
        assert (problem["status"], problem["code"]) == (404, "unknown_model")
        assert f"is a {kind}" in problem["detail"]
        wrong = {"place": place, "pointer": "/model", "value": name, "allowed": ["c_maker"]}
        assert problem["errors"] == [wrong]
    unknown: dict[str, Any] = {"params" if method == "GET" else "json": {"seed": 1, "model": "d"}}
    (wrong,) = (await client.request(method, "/generate", **unknown)).json()["errors"]
    assert wrong["allowed"] == ["c_maker"]
    assert (await client.get("/generate?seed=1")).json()["model"] == "c_maker"


async def test_without_a_generator_there_is_no_default(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """A service of classifiers alone is ready, and says at /generate that no generator is served."""
    tiny_model(name="a_reader", kind="classifier")
    client = connect()
    assert (await client.get("/readyz")).status_code == 200
    response = await client.get("/generate?seed=1")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "no generator is served" in response.json()["detail"]


async def test_pairs_are_bounded_by_seeds_and_count(client: httpx.AsyncClient) -> None:
    """Seeds times count over the limit are 413, which says how many each seed may have."""
    response = await client.get("/generate", params={"seeds": list(range(8)), "count": 9})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    wrong = {"place": "query", "pointer": "/count", "value": 9, "allowed": "at most 8 for each of 8 seeds"}
    assert response.json()["errors"] == [wrong]
