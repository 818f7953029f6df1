"""A shard is a pure function of its URL, streamed in bounded memory, behind all other work."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.api.shards import ShardRoutes
from service.engine.onnx_model import Arrays, OnnxModel
from service.latents import MAX_SEED
from tests.running import Service, listening

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def labelled(tiny_model: Callable[..., Path], connect: Connect) -> httpx.AsyncClient:
    """Return a client of an app with a model of two domains, each with a classifier."""
    tiny_model(("digit", "edge"))
    tiny_model(("digit",), name="reader", kind="classifier", goes_with=("tiny",))
    return connect()


def members(content: bytes) -> dict[str, bytes]:
    """Return the files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]  # all files


async def test_a_shard_holds_image_0_of_its_seeds(client: httpx.AsyncClient) -> None:
    """Shard 3 of size 5 has seeds 15 to 19, in their order, with the pixels of /generate."""
    response = await client.get("/shards/000003.tar?size=5")
    files = members(response.content)
    assert list(files) == [f"{seed}.{end}" for seed in range(15, 20) for end in ("digit.png", "edge.png", "json")]
    pairs = (await client.get("/generate", params={"seeds": list(range(15, 20)), "format": "npz"})).content
    arrays = np.load(io.BytesIO(pairs))
    for i, seed in enumerate(range(15, 20)):
        for domain in ("digit", "edge"):
            pixels = np.asarray(Image.open(io.BytesIO(files[f"{seed}.{domain}.png"])))
            assert np.array_equal(pixels, arrays[domain][i].squeeze())
        digest = (await client.get("/models/tiny")).json()["digest"]
        assert json.loads(files[f"{seed}.json"]) == {"seed": seed, "index": 0, "digest": digest}
    assert response.headers["content-type"] == "application/x-tar"
    assert response.headers["content-disposition"] == 'attachment; filename="tiny-000003.tar"'


async def test_a_tar_is_what_python_writes(client: httpx.AsyncClient) -> None:
    """`tarfile` makes the same bytes of the same files, dated 1970 and of no owner."""
    content, again = (await client.get("/shards/7.tar?size=40")).content, io.BytesIO()
    with tarfile.open(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members(content).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert content == again.getvalue()


@pytest.mark.parametrize("form", ["png", "webp", "npy"])
async def test_every_format_has_the_same_pixels(client: httpx.AsyncClient, form: str) -> None:
    """The format changes the suffix and the encoding alone."""
    files = members((await client.get(f"/shards/1.tar?size=2&domains=edge&format={form}")).content)
    plain = members((await client.get("/shards/1.tar?size=2&domains=edge")).content)
    assert list(files) == [f"2.edge.{form}", "2.json", f"3.edge.{form}", "3.json"]
    read: Callable[[bytes], Any] = (
        (lambda data: np.load(io.BytesIO(data))) if form == "npy" else (lambda data: Image.open(io.BytesIO(data)))
    )
    assert np.array_equal(
        np.asarray(read(files[f"3.edge.{form}"])), np.asarray(Image.open(io.BytesIO(plain["3.edge.png"])))
    )


async def test_the_same_url_has_the_same_bytes_everywhere(labelled: httpx.AsyncClient, connect: Connect) -> None:
    """Another process with other threads and batches makes equal bytes with an equal ETag."""
    url = "/shards/2.tar?size=30&labels=true&class=two"
    first, other = await labelled.get(url), await connect(threads=1, max_batch=3).get(url)
    assert first.content == other.content
    assert first.headers["etag"] == other.headers["etag"]


async def test_filters_take_the_first_candidate_that_passes(labelled: httpx.AsyncClient) -> None:
    """Each pair is the first of its seed that /generate takes with the same filters, and tells its index."""
    query = "labels=true&class=two&min_confidence=0.6"
    files = members((await labelled.get(f"/shards/0.tar?size=8&{query}")).content)
    told = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert [one["seed"] for one in told] == list(range(8))
    assert any(one["index"] for one in told)
    for one in told:
        (pair,) = (await labelled.get(f"/generate?seed={one['seed']}&count=1&{query}")).json()["pairs"]
        assert {name: one[name] for name in ("seed", "index", "labels", "agree")} == {
            n: v for n, v in pair.items() if n != "images"
        }
        earlier = f"/generate?seed={one['seed']}&count={one['index'] + 1}&labels=true"
        passed = [
            p["index"]
            for p in (await labelled.get(earlier)).json()["pairs"]
            if p["labels"]["digit"]["class"] == "two" and p["labels"]["digit"]["confidence"] >= 0.6
        ]
        assert passed == [one["index"]]


async def test_seeds_without_a_candidate_are_listed(
    labelled: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the last member, whose name readers of shards pass over; /generate says how many passed."""
    monkeypatch.setattr("service.generation.pairs.MAX_CANDIDATES", 2)
    files = members((await labelled.get("/shards/0.tar?size=40&class=two")).content)
    skipped = json.loads(files["__skipped__"])["seeds"]
    assert list(files)[-1] == "__skipped__"
    assert 0 < len(skipped) < 40
    assert {f"{seed}.json" for seed in range(40) if seed not in skipped} == {n for n in files if n.endswith(".json")}
    refused = await labelled.get(f"/generate?seed={skipped[0]}&class=two")
    assert refused.status_code == 422
    assert f"0 of 2 candidates of seed {skipped[0]}" in refused.json()["detail"]


async def test_a_client_that_has_a_shard_gets_304_and_head_generates_nothing(client: httpx.AsyncClient) -> None:
    """Neither runs a model; HEAD has the headers of GET."""
    head = await client.head("/shards/3.tar?size=100000")
    assert (head.status_code, head.content) == (200, b"")
    assert "content-length" not in head.headers  # which nobody knows
    tag = head.headers["etag"]
    known = await client.get("/shards/3.tar?size=100000", headers={"if-none-match": tag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    lines = [("if-none-match", '"another"'), ("if-none-match", tag)]
    assert (await client.get("/shards/3.tar?size=100000", headers=lines)).status_code == 304
    assert "cogan_shard_pairs_total 0.0" in (await client.get("/metrics")).text
    small = await client.get("/shards/3.tar?size=2")
    assert small.headers["etag"] == (await client.head("/shards/3.tar?size=2&format=png&model=tiny")).headers["etag"]
    others = [(await client.head(f"/shards/{q}")).headers["etag"] for q in ("4.tar?size=2", "3.tar?size=2&format=npy")]
    assert len({tag, small.headers["etag"], *others}) == 4
    assert "cogan_shard_pairs_total 2.0" in (await client.get("/metrics")).text


async def test_a_digest_pins_the_model(client: httpx.AsyncClient) -> None:
    """409 if another file is served, with the digest that is."""
    digest = (await client.get("/models/tiny")).json()["digest"]
    assert (await client.get("/shards/0.tar", params={"size": 1, "digest": digest})).status_code == 200
    refused = await client.get("/shards/0.tar", params={"digest": "sha256:" + 64 * "0"})
    assert (refused.status_code, refused.json()["code"]) == (409, "digest_mismatch")
    assert refused.json()["errors"][0]["allowed"] == [digest]


@pytest.mark.parametrize(
    ("url", "place", "pointer"),
    [
        ("/shards/0.tar?size=0", "query", "/size"),
        ("/shards/0.tar?size=100001", "query", "/size"),
        ("/shards/-1.tar", "path", "/number"),
        ("/shards/one.tar", "path", "/number"),
        ("/shards/9007199254741.tar", "path", "/number"),
        ("/shards/00000000000000001.tar", "path", "/number"),
        ("/shards/0.tar?class=nine", "query", "/class"),
        ("/shards/0.tar?domains=edge&class=one", "query", "/class"),
        ("/shards/0.tar?domains=edge&agree=true", "query", "/agree"),
        ("/shards/0.tar?min_confidence=2", "query", "/min_confidence"),
        ("/shards/0.tar?digest=abc", "query", "/digest"),
        ("/shards/0.tar?format=gif", "query", "/format"),
        ("/shards/0.tar?seed=1", "query", "/seed"),
    ],
)
async def test_bad_input_is_pointed_at(labelled: httpx.AsyncClient, url: str, place: str, pointer: str) -> None:
    """A wrong number, size, class, or a filter without a classifier is 422."""
    refused = await labelled.get(url)
    assert refused.status_code == 422
    assert [(one["place"], one["pointer"]) for one in refused.json()["errors"]] == [(place, pointer)]


async def test_the_last_shard_ends_with_the_last_seed(client: httpx.AsyncClient) -> None:
    """Seeds end at 2^53 - 1, which the last shard of size 1 has."""
    files = members((await client.get(f"/shards/{MAX_SEED}.tar?size=1")).content)
    assert list(files) == [f"{MAX_SEED}.digit.png", f"{MAX_SEED}.edge.png", f"{MAX_SEED}.json"]


async def test_a_shard_too_slow_for_its_deadline_is_504(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """What fails before the first pair has a status of its own."""
    tiny_model(turns=400_000)
    refused = await connect(deadline_s=0.05).get("/shards/0.tar")
    assert (refused.status_code, refused.json()["code"]) == (504, "deadline_exceeded")


async def test_a_filter_may_take_longer_than_the_deadline(
    labelled: httpx.AsyncClient, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run of the model has a deadline of its own, however many candidates are passed over before a pair."""
    url, work = "/shards/2.tar?size=30&class=two", ShardRoutes._work
    whole, slices = (await labelled.get(url)).content, list[float]()

    def slowly(self: ShardRoutes, parts: Iterator[bytes]) -> tuple[bytes, bool]:
        slices.append(time.perf_counter())
        time.sleep(0.3)
        return work(self, parts)

    monkeypatch.setattr("service.api.shards.SLICE_S", 0.0)
    monkeypatch.setattr(ShardRoutes, "_work", slowly)
    assert (await connect(deadline_s=2.0).get(url)).content == whole
    assert slices[-1] - slices[0] > 2.0


def request(port: int, path: str, *headers: str) -> socket.socket:
    """Send a request for a shard and return the connection."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    client.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: service", *headers, "", ""]).encode())
    return client


def samples(service: Service) -> float:
    """Return how many pairs a service has generated for shards."""
    lines = httpx.get(f"{service.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("cogan_shard_pairs_total"))


def test_a_slow_reader_holds_up_the_work_and_one_that_left_ends_it(
    tiny_model: Callable[..., Path], start: Callable[..., Service]
) -> None:
    """Pairs are generated as they are read: a reader that stops costs no more, nor does one that is gone."""
    tiny_model(("digit", "edge"))
    service = start(threads=1)
    with closing(request(service.port, "/shards/0.tar?size=100000")) as client:
        client.recv(1)
        stands = settled(service)
        assert 0 < stands < 50_000
    time.sleep(0.5)
    assert settled(service) - stands < 5_000


def settled(service: Service) -> float:
    """Return how many pairs were generated once the number stays the same."""
    before, now = -1.0, samples(service)
    while now != before:
        time.sleep(0.3)
        before, now = now, samples(service)
    return now


@pytest.mark.parametrize("good_runs", [0, 500])  # more than the first slice has, and fewer than the shard
async def test_a_failure_aborts_the_body(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch, good_runs: int
) -> None:
    """What fails at once is 500; in the middle the body stops without the end that HTTP and tar have."""
    tiny_model(("digit", "edge"))
    async with listening(models_dir, threads=1) as port, httpx.AsyncClient(timeout=60) as client:
        run, runs = OnnxModel.run, iter(range(good_runs))

        def fail_later(model: OnnxModel, inputs: Arrays) -> Arrays:
            next(runs)  # raises StopIteration in the end
            return run(model, inputs)

        monkeypatch.setattr(OnnxModel, "run", fail_later)
        url = f"http://127.0.0.1:{port}/shards/0.tar?size=50000"
        if good_runs:
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                await client.get(url)
        else:
            failed = await client.get(url)
            assert (failed.status_code, failed.json()["code"]) == (500, "run_failed")


def test_a_swap_does_not_change_a_download(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """A shard ends with the model it began with, also if another version is served meanwhile."""
    tiny_model(("digit", "edge"))
    service = start(threads=1)
    whole = httpx.get(f"{service.url}/shards/0.tar?size=3000", timeout=60).content
    with closing(request(service.port, "/shards/0.tar?size=3000", "Connection: close")) as client:
        received = client.recv(1000)
        tiny_model(("digit", "edge"), version="2")
        while httpx.get(f"{service.url}/models/tiny").json()["version"] != "2":
            time.sleep(0.05)
        received += read_all(client)
    assert unchunked(received.partition(b"\r\n\r\n")[2]) == whole


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes."""
    parts = list[bytes]()
    while part := client.recv(2**20):
        parts.append(part)
    return b"".join(parts)


def unchunked(body: bytes) -> bytes:
    """Decode a chunked body."""
    parts, at = list[bytes](), 0
    while size := int(body[at : (line := body.index(b"\r\n", at))], 16):
        parts.append(body[line + 2 : line + 2 + size])
        at = line + 4 + size
    return b"".join(parts)
