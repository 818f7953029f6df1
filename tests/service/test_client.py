"""What the Python client returns of the real service, and what it keeps."""

from __future__ import annotations

import inspect
import io
import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import MAX_CACHED, AsyncClient, Client, PairOptions
from service.errors import DigestMismatch, InvalidRequest
from service.metadata import Direction
from tests.conftest import LATENT_DIM, domain_shapes
from tests.running import Service, wait_until
from tests.service.conftest import statuses

Start = Callable[..., Service]
Open = Callable[..., Client]
UNIT_VECTORS = np.eye(LATENT_DIM)[:2].tolist()
DIRECTIONS = [
    Direction(name="thickness", vector=UNIT_VECTORS[0], spread=0.5),
    Direction(vector=UNIT_VECTORS[1], spread=0.5),
]


@pytest.fixture
def client(served: Service, connect_to: Open) -> Client:
    """Return a client of that service."""
    return connect_to(served.url)


def arrays(served: Service, path: str) -> dict[str, Any]:
    """Return what the service sends as npz."""
    return dict(np.load(io.BytesIO(httpx.get(f"{served.url}{path}&format=npz").raise_for_status().content)))


# Results


def test_generate_returns_the_pixels_of_the_service(served: Service, client: Client) -> None:
    """Arrays of all pairs, each pair with its seed and index, and pictures of single images."""
    pairs = client.generate(seeds=[7, 8], count=2)
    expected = arrays(served, "/generate?seeds=7&seeds=8&count=2")
    for domain in ("digit", "edge"):
        assert pairs[domain].dtype == np.uint8
        assert np.array_equal(pairs[domain], expected[domain])
        assert np.array_equal(np.asarray(pairs.image(domain, 3)), expected[domain][3].squeeze())
    assert [(pair.seed, pair.index) for pair in pairs] == [(7, 0), (7, 1), (8, 0), (8, 1)]
    assert np.array_equal(pairs[1]["edge"], expected["edge"][1])
    assert (len(pairs), pairs.model, pairs.domains) == (4, "tiny", ("digit", "edge"))


def test_options_reach_the_service(served: Service, client: Client) -> None:
    """Model, domains in their order, and truncation."""
    pairs = client.generate(seed=7, model="all", domains=("negative", "edge"), truncation=0.5)
    expected = arrays(served, "/generate?seed=7&model=all&truncation=0.5")
    assert pairs.domains == ("negative", "edge")
    assert np.array_equal(pairs["negative"], expected["negative"])
    assert not np.array_equal(pairs["edge"], arrays(served, "/generate?seed=7&model=all")["edge"])


def test_directions_move_all_images(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """By number or name, in queries and bodies: the pixels are those that the service answers to curl."""
    tiny_model(directions=DIRECTIONS)
    service = start()
    client, moved = connect_to(service.url), arrays(service, "/generate?seed=7&directions=2:1.5,thickness:-1")
    pairs = client.generate(seed=7, directions={2: 1.5, "thickness": -1})
    assert np.array_equal(pairs["edge"], moved["edge"])
    assert not np.array_equal(pairs["edge"], client.generate(seed=7, directions={})["edge"])
    latent = arrays(service, "/generate?seed=7")["latent"][0]
    assert np.array_equal(
        client.generate(latents=[latent], directions={"2": 1.5, "thickness": -1})["edge"], moved["edge"]
    )
    for keyframes in ([7, 8], [7, 8, latent]):
        walk = client.interpolate(keyframes, steps=2, directions={"2": 1.5, "thickness": -1})
        assert np.array_equal(walk["edge"][0], moved["edge"][0])
    (pair, _) = client.shards(0, size=2, directions={"2": 1.5})
    assert np.array_equal(pair["edge"], arrays(service, "/generate?seed=0&directions=2:1.5")["edge"][0])


def test_latents_are_sent_exactly(served: Service, client: Client) -> None:
    """Latents that the service has used give the same images again."""
    expected = arrays(served, "/generate?seed=3&count=5")
    pairs = client.generate(latents=expected["latent"])
    assert np.array_equal(pairs["edge"], expected["edge"])
    assert pairs[4].seed is None


def test_without_a_seed_it_is_random(client: Client) -> None:
    """Two requests differ, and each is repeated by its seed."""
    first, second = client.generate(), client.generate()
    assert first[0].seed != second[0].seed
    assert np.array_equal(client.generate(seed=first[0].seed)["digit"], first["digit"])


def test_interpolate_walks_between_seeds(served: Service, client: Client) -> None:
    """Two seeds give the frames of GET, with their positions."""
    walk = client.interpolate([1, 2], steps=5, method="lerp")
    assert np.array_equal(walk["edge"], arrays(served, "/interpolate?from=1&to=2&steps=5&method=lerp")["edge"])
    assert [frame.t for frame in walk] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_key_frames_are_seeds_pairs_and_latents(served: Service, client: Client) -> None:
    """A walk goes through each of them, and back to the first in a loop."""
    kept, pair = arrays(served, "/generate?seed=5&count=3"), client.generate(seed=5, count=3)[2]
    walk = client.interpolate([5, pair, kept["latent"][1]], steps=3, loop=True)
    assert len(walk) == 6
    assert np.array_equal(walk["digit"][::2], kept["digit"][[0, 2, 1]])


def test_a_walk_has_model_truncation_and_directions_of_its_pairs(
    start: Start, tiny_model: Callable[..., Path], connect_to: Open
) -> None:
    """The frame of a pair has its images, and that of a seed beside it is made likewise."""
    tiny_model()
    tiny_model(name="moved", directions=DIRECTIONS)
    client = connect_to(start(default_model="tiny").url)
    made: Any = {"model": "moved", "truncation": 0.5, "directions": {2: 1.5}}
    beside = client.generate(seed=5, **made)["edge"][0]
    for pair in (client.generate(seed=7, count=3, **made)[2], *client.shards(7, size=1, **made)):
        walk = client.interpolate([pair, 5], steps=2)
        assert (walk.model, walk[1].model, walk[1].truncation, walk[1].directions) == (
            "moved",
            "moved",
            0.5,
            {"2": 1.5},
        )
        assert np.array_equal(walk["edge"], [pair["edge"], beside])
    assert [pair.model for pair in client.shards(0, size=1)] == ["tiny"]


@pytest.mark.parametrize(
    ("pair", "walk", "error"),
    [
        ({"model": "all"}, {}, "model of the pairs and the walk is 'all' and 'tiny'"),
        ({"truncation": 0.5}, {}, "truncation of the pairs and the walk is 0.5 and None"),
        ({}, {"model": "all"}, "model of the pairs and the walk is 'all' and 'tiny'"),
        ({}, {"truncation": 0.5}, "truncation of the pairs and the walk is 0.5 and None"),
        ({}, {"directions": {1: 2}}, "directions of the pairs and the walk is None and {'1': 2.0}"),
    ],
)
def test_pairs_that_differ_are_no_key_frames(
    client: Client, pair: dict[str, Any], walk: dict[str, Any], error: str
) -> None:
    """A walk in which one of them would have other images is refused, and one with the same options is not."""
    with pytest.raises(ValueError, match=re.escape(error)):
        client.interpolate([client.generate(seed=7)[0], client.generate(seed=8, **pair)[0]], **walk)
    pairs = [client.generate(seed=seed, model="all", truncation=0.5)[0] for seed in (7, 8)]
    assert len(client.interpolate(pairs, steps=3, model="all", truncation=0.5)) == 3


def test_numbers_of_numpy_are_numbers(served: Service, client: Client) -> None:
    """As seeds, key frames and options, in queries and in bodies."""
    expected = client.interpolate([1, 2], steps=3)
    numbers = np.array([1, 2])
    assert np.array_equal(client.interpolate(list(numbers), steps=np.int64(3))["edge"], expected["edge"])  # type: ignore[arg-type]
    walk = client.interpolate([*numbers, 5], steps=np.int32(3), truncation=np.float32(2.0), loop=np.bool_(False))  # type: ignore[arg-type]
    assert np.array_equal(walk["edge"], client.interpolate([1, 2, 5], steps=3, truncation=2.0)["edge"])
    pairs = client.generate(seeds=numbers, count=np.int64(2), labels=np.bool_(True))  # type: ignore[arg-type]
    assert np.array_equal(pairs["edge"], arrays(served, "/generate?seeds=1&seeds=2&count=2")["edge"])
    assert [pair.seed for pair in client.shards(np.int64(0), size=np.int64(2))] == [0, 1]  # type: ignore[arg-type]
    assert [pair.seed for pair in client.shards(numbers, size=1)] == [1, 2]
    assert pairs[np.int64(1)] is pairs[1]  # type: ignore[call-overload]


def test_one_domain_may_be_a_name(client: Client) -> None:
    """In queries and in bodies; and pairs are compared as objects, as arrays have no single truth."""
    by_query, by_body = client.generate(seed=1, domains="edge"), client.interpolate([1, 2, 3], domains="edge")
    assert by_query.domains == by_body.domains == ("edge",)
    assert by_query == by_query
    assert by_query != client.generate(seed=1, domains="edge")


def test_a_pair_without_a_seed_is_no_key_frame(client: Client) -> None:
    """The error says what to give instead, as the latent of such a pair is somewhere else."""
    pair = client.generate(latents=np.zeros((1, LATENT_DIM)))[0]
    with pytest.raises(ValueError, match="has no seed: give its latent"):
        client.interpolate([7, pair])


def test_models_are_cards_by_name(served: Service, client: Client) -> None:
    """The default one comes first, whatever the order of names."""
    models = client.models()
    assert list(models) == ["tiny", "all", "reader"]
    assert models["all"] == httpx.get(f"{served.url}/models/all").json()


def test_fetch_returns_files_as_they_are(served: Service, client: Client) -> None:
    """Any GET of the service, such as an animation."""
    query: dict[str, str | int] = {"from": 1, "to": 2, "format": "gif"}
    assert client.fetch("/interpolate", query) == httpx.get(f"{served.url}/interpolate", params=query).content
    assert client.fetch("/interpolate?from=1&to=2", {"format": "gif"}) == client.fetch("/interpolate", query)


@pytest.mark.parametrize("path", ["/pairs", "/pairs/"])
def test_a_service_may_be_below_a_path(
    answering: Callable[..., list[httpx.Request]], connect_to: Open, path: str
) -> None:
    """The client keeps the prefix of its address."""
    requests = answering(httpx.Response(200, content=b"an image"))
    assert connect_to(f"http://service{path}").fetch("/generate?seed=7") == b"an image"
    assert [str(request.url) for request in requests] == ["http://service/pairs/generate?seed=7"]


def test_its_methods_are_documented() -> None:
    """`help` shows the fields of the request, not the wrapper's."""
    for kind in (Client, AsyncClient):
        method = kind("http://service").generate
        assert list(inspect.signature(method).parameters)[:2] == ["seed", "seeds"]
        assert "latents [B, Z]" in (inspect.getdoc(method) or "")


def test_threads_share_a_client(served: Service) -> None:
    """Each gets the response to its own request."""
    expected = arrays(served, "/generate?" + "&".join(f"seeds={i}" for i in range(20)))["edge"]
    with Client(served.url) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: client.generate(seed=i % 20)["edge"][0], range(200)))
    assert all(np.array_equal(one, expected[i % 20]) for i, one in enumerate(found))


# Labels, filters and shards


def test_pairs_are_labelled_and_filtered(client: Client) -> None:
    """Those that pass have the class and the confidence, and can be generated again by seed and index."""
    pairs = client.generate(seed=3, count=4, labels=True, agree=True, class_name="two", min_confidence=0.6)
    assert len(pairs) == 4
    for pair in pairs:
        assert pair.labels is not None
        assert pair.agree
        assert pair.labels["digit"]["class"] == "two"
        assert pair.labels["digit"]["confidence"] >= 0.6
        again = client.generate(seed=3, index=pair.index)
        assert np.array_equal(again["edge"][0], pair["edge"])
    assert max(pair.index or 0 for pair in pairs) > 3, "some did not pass"


def test_frames_are_labelled(client: Client) -> None:
    """Each frame of a walk has its labels."""
    walk = client.interpolate([1, 2], steps=3, labels=True)
    assert [list(frame.labels or ()) for frame in walk] == [["digit"]] * 3


def test_shards_are_pairs_of_their_seeds(served: Service, client: Client) -> None:
    """Several shards follow one another, with the pixels of the service, each from its own seed on."""
    pairs = list(client.shards([2, 0], size=3))
    assert [pair.seed for pair in pairs] == [6, 7, 8, 0, 1, 2]
    expected = arrays(served, "/generate?seed=7")
    assert np.array_equal(pairs[1]["edge"], expected["edge"][0])
    assert np.array_equal(pairs[1]["digit"], expected["digit"][0])
    assert len(list(client.shards(5, size=40))) == 40


@pytest.mark.parametrize("kind", ["png", "npy", "webp"])
def test_shards_have_images_of_every_format(client: Client, kind: Any) -> None:
    """All of them have the same pixels, in WebP as RGB."""
    expected = client.generate(seeds=[0, 1])
    pairs = list(client.shards(0, size=2, format=kind))
    for domain in expected.domains:
        pixels = (
            expected[domain] if kind != "webp" else np.broadcast_to(expected[domain], (*expected[domain].shape[:3], 3))
        )
        assert np.array_equal([pair[domain] for pair in pairs], pixels)


def test_shards_take_options_and_filters(client: Client) -> None:
    """Seeds without a pair that passes are left out, and the list of them is no pair."""
    options: PairOptions = {"domains": ["digit"], "labels": True, "class_name": "two", "min_confidence": 0.99}
    pairs = list(client.shards(0, size=20, **options))
    seeds = [pair.seed or 0 for pair in pairs]
    assert seeds == sorted({*seeds} & {*range(20)})
    assert 0 < len(seeds) < 20
    assert all(pair.labels and pair.labels["digit"]["class"] == "two" for pair in pairs)
    assert all(set(pair.images) == {"digit"} for pair in pairs)


def test_shards_pin_the_model(client: Client) -> None:
    """Of another file of the model nothing is taken."""
    digest = client.models()["tiny"]["digest"]
    assert len(list(client.shards(1, size=2, digest=digest))) == 2
    with pytest.raises(DigestMismatch):
        list(client.shards(1, size=2, digest="sha256:" + "0" * 64))


def test_shards_are_downloaded_one_at_a_time(served: Service) -> None:
    """An endless sequence of numbers is an endless data set."""
    with Client(served.url) as client:
        seeds = [pair.seed for pair in itertools.islice(client.shards(itertools.count(7), size=2), 5)]
    assert seeds == [14, 15, 16, 17, 18]


# Translations


@pytest.fixture
def translator(start: Start, sized_model: Callable[..., Path], connect_to: Open) -> Client:
    """Return a client of a service with a generator of two domains and an encoder of one."""
    sized_model(shapes := domain_shapes(("digit", "edge")))
    sized_model({"digit": shapes["digit"]}, name="reader", kind="encoder", goes_with=("tiny",), quality={"passes": 2})
    return connect_to(start().url)


def test_an_image_is_translated(translator: Client) -> None:
    """Its latent gives the counterparts again, and is a key frame of walks."""
    image = translator.generate(seed=7)[0]["digit"]
    found = translator.translate(image, source="digit", to=["edge", "digit"])
    assert (found.source, found.domains, len(found)) == ("digit", ("edge", "digit"), 1)
    assert np.array_equal(translator.generate(latents=[found.latent])["edge"], found["edge"])
    assert np.array_equal(translator.interpolate([3, found.latent])["edge"][-1], found["edge"][0])
    difference = found["digit"][0].astype(float) - image
    assert found.error == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-3)


def test_images_are_arrays_pictures_or_files(translator: Client) -> None:
    """The same pixels give the same answer, whatever holds them; without a domain it is found."""
    pair, file = translator.generate(seed=7)[0], io.BytesIO()
    pair.image("digit").save(file, "BMP")
    ways = pair["digit"], pair["digit"][..., 0], pair.image("digit"), file.getvalue()
    first, *others = [translator.translate(image) for image in ways]
    assert first.source == "digit"
    assert all(np.array_equal(one["edge"], first["edge"]) for one in others)


def test_a_photo_is_upright(translator: Client) -> None:
    """A JPEG that is stored sideways gives the same answer as a file and as a PIL image."""
    photo, file, exif = translator.generate(seed=7)[0].image("digit"), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    photo.save(file, "JPEG", exif=exif)
    as_file, as_image = translator.translate(file.getvalue()), translator.translate(Image.open(file))
    assert as_file.error == as_image.error
    assert np.array_equal(as_file["edge"], as_image["edge"])


def test_what_is_no_image_is_refused(translator: Client) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        translator.translate(b"no image at all")
    assert caught.value.errors[0].pointer == "/image"


# The cache


def test_a_repeated_request_is_revalidated(start: Start, tiny_model: Callable[..., Path], connect_to: Open) -> None:
    """It is answered by 304 with the pixels of before, whatever was done to these; a new model is noticed."""
    tiny_model()
    service = start()
    client = connect_to(service.url)
    first = client.generate(seed=7)
    kept, first[0]["edge"][:] = first["edge"], 0
    assert np.array_equal(client.generate(seed=7)["edge"], kept)
    tiny_model(version="2", domains=("digit", "edge", "more"))
    wait_until(lambda: client.models()["tiny"]["version"] == "2")
    assert client.generate(seed=7).domains == ("digit", "edge", "more")
    wait_until(lambda: len(statuses(service)) == 3)
    assert statuses(service) == [200, 304, 200]


def test_the_cache_is_bounded(served: Service, client: Client) -> None:
    """The oldest response is dropped, the others stay."""
    before = len(statuses(served))
    for seed in (*range(MAX_CACHED + 1), 0, MAX_CACHED):
        client.generate(seed=seed)
    wait_until(lambda: len(statuses(served)) == before + MAX_CACHED + 3)
    assert statuses(served)[before:] == [200] * (MAX_CACHED + 2) + [304]
