"""Labels and filters of /generate and /interpolate: in every format that has room, the same in every batch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]
Pairs = list[dict[str, Any]]


@pytest.fixture
def labelled(tiny_model: Callable[..., Path], connect: Connect) -> httpx.AsyncClient:
    """Return a client of an app with a model of two domains, each with a classifier."""
    tiny_model(("digit", "edge"))
    tiny_model(("digit",), name="reader", kind="classifier", goes_with=("tiny",))
    tiny_model(("digit",), name="stranger", kind="classifier", goes_with=("somebody",))
    return connect()


async def pairs(client: httpx.AsyncClient, query: str) -> Pairs:
    """Return the pairs of a request, without their images."""
    found = (await client.get(f"/generate?{query}")).raise_for_status().json()["pairs"]
    return [{name: value for name, value in pair.items() if name != "images"} for pair in found]


async def test_labels_are_what_the_classifier_computes(labelled: httpx.AsyncClient) -> None:
    """Class and confidence are those of /v2 for the same pixels; domains without a classifier have no label."""
    found = await pairs(labelled, "seed=7&count=3&labels=true")
    images = np.load(io.BytesIO((await labelled.get("/generate?seed=7&count=3&format=npz")).content))["digit"]
    tensor = {"name": "digit", "datatype": "UINT8", "shape": list(images.shape), "data": images.flatten().tolist()}
    response = await labelled.post("/v2/models/reader/infer", json={"inputs": [tensor]})
    computed = np.array(response.json()["outputs"][0]["data"]).reshape(3, 3)
    for pair, row in zip(found, computed, strict=True):
        assert pair["labels"].keys() == {"digit"}
        assert pair["labels"]["digit"]["class"] == ("zero", "one", "two")[row.argmax()]
        assert pair["labels"]["digit"]["confidence"] == pytest.approx(row.max(), abs=1e-6)
        assert pair["agree"] is True


async def test_every_format_with_room_has_the_labels(labelled: httpx.AsyncClient) -> None:
    """JSON, npz and zip say the same; pictures refuse `labels` by name, and take filters."""
    query = "seed=7&count=3&class=two"
    found = await pairs(labelled, f"{query}&labels=true")
    arrays = np.load(io.BytesIO((await labelled.get(f"/generate?{query}&labels=true&format=npz")).content))
    assert arrays["pair.index"].tolist() == [pair["index"] for pair in found]
    assert arrays["digit.class"].tolist() == ["two"] * 3
    assert arrays["digit.confidence"].tolist() == [pair["labels"]["digit"]["confidence"] for pair in found]
    archive = zipfile.ZipFile(io.BytesIO((await labelled.get(f"/generate?{query}&labels=true&format=zip")).content))
    for pair in found:
        label = json.loads(archive.read(f"7-{pair['index']}/labels.json"))
        assert label == {"labels": pair["labels"], "agree": pair["agree"]}
    for form in ("png", "webp"):
        assert (await labelled.get(f"/generate?{query}&format={form}")).status_code == 200
        refused = await labelled.get(f"/generate?{query}&labels=true&format={form}")
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/labels")


async def test_without_classifiers_nothing_says_that_the_classes_agree(labelled: httpx.AsyncClient) -> None:
    """JSON says null, and npz leaves the array out."""
    query = "seed=7&count=3&labels=true&domains=edge"
    assert [(pair["labels"], pair["agree"]) for pair in await pairs(labelled, query)] == [({}, None)] * 3
    arrays = np.load(io.BytesIO((await labelled.get(f"/generate?{query}&format=npz")).content))
    assert "pair.agree" not in arrays
    assert len(arrays["edge"]) == 3


@pytest.mark.parametrize("query", ["class=two", "min_confidence=0.999", "class=one&min_confidence=0.9", "agree=true"])
async def test_the_first_candidates_that_pass_are_taken(labelled: httpx.AsyncClient, query: str) -> None:
    """Of seeds 7 and 8, by index, exactly those whose labels pass; each is the same when requested alone."""
    taken = await pairs(labelled, f"seeds=7&seeds=8&count=2&labels=true&{query}")
    wanted = dict(part.split("=") for part in query.split("&"))
    for seed in (7, 8):
        candidates = await pairs(labelled, f"seed={seed}&count=64&labels=true")
        passed = [
            one
            for one in candidates
            if one["labels"]["digit"]["class"] == wanted.get("class", one["labels"]["digit"]["class"])
            and one["labels"]["digit"]["confidence"] >= float(wanted.get("min_confidence", 0))
        ]
        assert [one for one in taken if one["seed"] == seed] == passed[:2]
        assert await pairs(labelled, f"seed={seed}&index={passed[1]['index']}&labels=true") == [passed[1]]


async def test_filtered_responses_are_equal_everywhere(labelled: httpx.AsyncClient, connect: Connect) -> None:
    """By GET and POST, and in a process with other batches, the bytes are the same, and so is the ETag."""
    query: dict[str, Any] = {"seeds": [1, 2, 3], "count": 3, "class": "two", "labels": True}
    first = await labelled.get("/generate", params=query)
    other = await connect(threads=1, max_batch=2).get("/generate", params=query)
    assert first.content == other.content == (await labelled.post("/generate", json=query)).content
    assert first.headers["etag"] == other.headers["etag"]
    known = await labelled.get("/generate", params=query, headers={"if-none-match": first.headers["etag"]})
    assert known.status_code == 304


async def test_the_etag_covers_the_classifier(
    labelled: httpx.AsyncClient, tiny_model: Callable[..., Path], connect: Connect
) -> None:
    """Another version of it has another tag for what is labelled or filtered, and the same for all else."""
    queries = ("seed=7&labels=true", "seed=7&class=one", "seed=7")
    before = [(await labelled.get(f"/generate?{query}")).headers["etag"] for query in queries]
    tiny_model(("digit",), name="reader", version="2", kind="classifier", goes_with=("tiny",))
    after = [(await connect().get(f"/generate?{query}")).headers["etag"] for query in queries]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


async def test_too_few_that_pass_are_422(labelled: httpx.AsyncClient) -> None:
    """The response says how many of how many passed."""
    first = await pairs(labelled, "seed=7&count=64&labels=true")
    surest = max(pair["labels"]["digit"]["confidence"] for pair in first)
    refused = await labelled.get(f"/generate?seed=7&count=64&min_confidence={surest}")
    assert refused.status_code == 422
    assert "of 1000 candidates of seed 7 pass the filters" in refused.json()["detail"]
    assert refused.json()["errors"][0]["pointer"] == "/count"


async def test_filters_that_nothing_passes_are_named(labelled: httpx.AsyncClient) -> None:
    """A smaller count would not help."""
    refused = await labelled.get("/generate?seed=7&class=zero&min_confidence=1")
    assert (refused.status_code, refused.json()["detail"][:9]) == (422, "0 of 1000")
    wrong = [(one["pointer"], one["value"]) for one in refused.json()["errors"]]
    assert wrong == [("/class", "zero"), ("/min_confidence", 1)]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"class": "nine"}, "/class"),
        ({"class": "", "agree": True}, "/class"),
        ({"domains": ["edge"], "min_confidence": 0.5}, "/min_confidence"),
        ({"min_confidence": 1.5}, "/min_confidence"),
        ({"latents": [[0.0] * 8], "class": "one"}, ""),
        ({"index": -1}, "/index"),
    ],
)
async def test_filters_that_do_not_fit_are_pointed_at(
    labelled: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    """An unknown class, no classifier, a wrong confidence, or filters of given latents."""
    refused = await labelled.post("/generate", json=body)
    assert refused.status_code == 422
    assert [one["pointer"] for one in refused.json()["errors"]] == [pointer]


async def test_frames_and_given_latents_have_labels(labelled: httpx.AsyncClient) -> None:
    """The ends of a path are labelled as their seeds are; latents sent back as well."""
    frames = (await labelled.get("/interpolate?from=1&to=2&steps=4&labels=true")).json()["frames"]
    (first,) = await pairs(labelled, "seed=1&labels=true")
    assert [set(frame) for frame in frames] == [{"t", "labels", "agree", "images"}] * 4
    assert frames[0]["labels"] == first["labels"]
    latent = np.load(io.BytesIO((await labelled.get("/generate?seed=1&format=npz")).content))["latent"].tolist()
    sent = (await labelled.post("/generate", json={"latents": latent, "labels": True})).json()["pairs"]
    assert sent[0]["labels"] == first["labels"]


async def test_a_random_seed_is_found_again_with_its_filters(labelled: httpx.AsyncClient) -> None:
    """Content-Location has everything that the request had."""
    first = await labelled.get("/generate?class=two&agree=true&labels=true&count=2")
    again = await labelled.get(first.headers["content-location"])
    assert again.content == first.content
