"""/translate: three ways to send an image, its latent, error and counterparts, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.engine.onnx_model import OnnxModel
from service.generation.decoding import Fitting, fit, read_image
from service.latents import Latent
from service.metadata import LATENT, PREVIOUS
from tests.conftest import domain_shapes
from tests.damaged import picture, saved

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]
MEASURED = {"passes": 2, "error": {"mean": 60.0, "quantiles": {"0.5": 60.0, "0.9": 110.0, "0.99": 150.0}}}
SHAPES = domain_shapes(("digit", "edge"))
FILE = saved(picture(), "PNG")


@pytest.fixture
def encoded(sized_model: Callable[..., Path]) -> dict[str, OnnxModel]:
    """Write a generator of three domains and encoders of two of them; return these by domain."""
    generator = OnnxModel(sized_model(domain_shapes(("digit", "edge", "negative"))))
    about: dict[str, Any] = {"kind": "encoder", "goes_with": (generator.graph_digest,), "quality": MEASURED}
    return {
        name: OnnxModel(sized_model({name: SHAPES[name]}, name=f"{name}_encoder", **about))
        for name in ("digit", "edge")
    }


def check(response: httpx.Response, status: int, pointer: str = "", allowed: Any = None) -> None:
    """Check an error: its status, and the first wrong field with what is allowed."""
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    if pointer:
        assert problem["errors"][0]["pointer"] == pointer, problem
    if allowed is not None:
        assert problem["errors"][0]["allowed"] == allowed, problem


def expected_latent(encoder: OnnxModel, passes: int, crop: float | None = None) -> Latent:
    """Return the latent of FILE after passes of an encoder."""
    (domain,) = encoder.metadata.domains
    image, latent = fit(read_image(FILE), Fitting(domain, crop=crop)), np.zeros((1, 8), np.float32)
    for _ in range(passes):
        latent = encoder.run({domain.name: image[np.newaxis], PREVIOUS: latent})[LATENT]
    found: Latent = latent[0]
    return found


async def test_three_ways_to_send_an_image(encoded: dict[str, OnnxModel], connect: Connect) -> None:
    """A file of a form, an image with a query, and a data URL in JSON get the same bytes, again and again."""
    client, url = connect(), "data:image/png;base64," + base64.b64encode(FILE).decode()
    found = [
        await client.post("/translate", files={"image": FILE}, data={"from": "digit", "to": ["edge", "digit"]}),
        await client.post(
            "/translate", data={"from": "digit", "to": ["edge", "digit"]}, files={"image": ("a.png", FILE)}
        ),
        await client.post(
            "/translate?from=digit&to=edge&to=digit", content=FILE, headers={"content-type": "image/png"}
        ),
        await client.post("/translate", json={"image": url, "from": "digit", "to": ["edge", "digit"]}),
    ]
    assert [one.status_code for one in found] == [200] * 4, [one.text for one in found]
    assert len({one.content for one in found}) == 1
    body = found[0].json()
    assert (body["from"], body["domains"], list(body["pairs"][0]["images"])) == (
        "digit",
        ["edge", "digit"],
        body["domains"],
    )
    assert body["encoder"]["digest"] == encoded["digit"].digest


async def test_passes_begin_at_zeros(encoded: dict[str, OnnxModel], connect: Connect) -> None:
    """By default there are as many as the metadata say; `refine` is the number after the first."""
    client = connect()
    for refine, passes in ((None, 2), (0, 1), (1, 2), (5, 6)):
        query = {"from": "digit"} | ({} if refine is None else {"refine": str(refine)})
        found = (await client.post("/translate", files={"image": FILE}, data=query)).json()
        assert np.allclose(found["latent"], expected_latent(encoded["digit"], passes), atol=1e-5)
    check(await client.post("/translate", files={"image": FILE}, data={"refine": "16"}), 422, "/refine")


@pytest.mark.usefixtures("encoded")
async def test_the_latent_is_found_again(connect: Connect) -> None:
    """/generate and /interpolate take the latent, and return the same bytes as the translation."""
    client = connect()
    found = (await client.post("/translate", files={"image": FILE}, data={"from": "digit"})).json()
    generated = (await client.post("/generate", json={"latents": [found["latent"]]})).json()
    assert generated["pairs"][0]["images"] == found["pairs"][0]["images"]
    frames = {"keyframes": [{"latent": found["latent"]}, {"seed": 1}], "steps": 2}
    walk = (await client.post("/interpolate", json=frames)).json()
    assert walk["frames"][0]["images"] == found["pairs"][0]["images"]


@pytest.mark.parametrize("format_", ["png", "webp", "zip", "npz"])
@pytest.mark.usefixtures("encoded")
async def test_every_format_has_what_was_found(connect: Connect, format_: str) -> None:
    """The body is that of /generate for the latent; headers have domain, error, likeness and latent."""
    client = connect()
    plain = (await client.post("/translate", files={"image": FILE}, data={"from": "edge"})).json()
    response = await client.post("/translate", files={"image": FILE}, data={"from": "edge", "format": format_})
    generated = await client.post("/generate", json={"latents": [plain["latent"]], "format": format_})
    assert response.content == generated.content
    assert response.headers["content-type"] == generated.headers["content-type"]
    headers = response.headers
    assert (headers["x-image-domain"], headers["x-likeness"]) == ("edge", plain["likeness"])
    assert float(headers["x-reconstruction-error"]) == pytest.approx(plain["error"], abs=1e-3)
    assert np.frombuffer(base64.b64decode(headers["x-latent"]), "<f4").tolist() == plain["latent"]
    assert ("content-disposition" in headers) == (format_ in ("zip", "npz"))
    if format_ == "zip":
        assert zipfile.ZipFile(io.BytesIO(response.content)).testzip() is None


@pytest.mark.usefixtures("encoded")
async def test_the_accept_header_chooses_the_format(connect: Connect) -> None:
    """As for /generate, and what is not offered is 406."""
    client = connect()
    response = await client.post("/translate", files={"image": FILE}, headers={"accept": "image/webp"})
    assert response.headers["content-type"] == "image/webp"
    check(await client.post("/translate", files={"image": FILE}, headers={"accept": "text/html"}), 406, "/accept")
    lines = [("accept", "text/html"), ("accept", "image/png")]
    response = await client.post("/translate", files={"image": FILE}, headers=lines)
    assert response.headers["content-type"] == "image/png"


@pytest.mark.usefixtures("encoded")
async def test_a_form_that_is_cut_off_is_refused(connect: Connect) -> None:
    """Wherever it ends: a field that came in part, or not at all, would be left out silently."""
    client = connect()
    whole = client.build_request("POST", "/translate", files={"image": FILE}, data={"format": "png"})
    form, headers = whole.read(), {"content-type": whole.headers["content-type"]}
    assert (await client.post("/translate", content=form, headers=headers)).headers["content-type"] == "image/png"
    for end in range(len(form) // 8, len(form) - 4, len(form) // 8):
        check(await client.post("/translate", content=form[:end], headers=headers), 400)


@pytest.mark.usefixtures("encoded")
async def test_without_a_domain_the_likeliest_is_named(sized_model: Callable[..., Path], connect: Connect) -> None:
    """All encoders are tried; errors count in medians of their own test images."""
    client = connect()
    found = (await client.post("/translate", files={"image": FILE})).json()
    errors = found["errors"]
    assert set(errors) == {"digit", "edge"}
    assert found["from"] == min(errors, key=lambda name: errors[name])
    assert found["error"] == errors[found["from"]]
    other = max(errors, key=lambda name: errors[name])
    tolerant = {"quantiles": {"0.5": 255.0, "0.9": 255.0, "0.99": 255.0}, "mean": 255.0}
    sized_model(
        {other: SHAPES[other]},
        name="a_tolerant_encoder",  # the first by name
        kind="encoder",
        goes_with=("tiny",),
        quality={"passes": 2, "error": tolerant},
    )
    found = (await connect().post("/translate", files={"image": FILE})).json()
    assert (found["from"], found["encoder"]["model"]) == (other, "a_tolerant_encoder")


async def test_the_error_is_that_of_the_reconstruction(encoded: dict[str, OnnxModel], connect: Connect) -> None:
    """It is the root of the mean squared difference to the image that is returned for the same domain."""
    found = (await connect().post("/translate", files={"image": FILE}, data={"from": "digit"})).json()
    data = base64.b64decode(found["pairs"][0]["images"]["digit"].partition(",")[2])
    reconstruction = np.asarray(Image.open(io.BytesIO(data)), float)
    (domain,) = encoded["digit"].metadata.domains
    image = fit(read_image(FILE), Fitting(domain))[..., 0]
    assert found["error"] == pytest.approx(np.sqrt(np.square(image - reconstruction).mean()))
    assert found["test_error"] == MEASURED["error"]


@pytest.mark.parametrize(
    ("quantiles", "word"),
    [((255.0, 255.0), "typical"), ((1.0, 255.0), "unusual"), ((1.0, 2.0), "unlike"), (None, None)],
)
async def test_the_word_is_the_place_among_test_images(
    tiny_model: Callable[..., Path], connect: Connect, quantiles: tuple[float, float] | None, word: str | None
) -> None:
    """Up to 0.9 of them, up to 0.99, above; nothing is said without a measure."""
    tiny_model()
    quality: dict[str, Any] = {"passes": 1}
    if quantiles is not None:
        quality["error"] = {"mean": 1.0, "quantiles": {"0.5": 0.5, "0.9": quantiles[0], "0.99": quantiles[1]}}
    tiny_model(("digit",), name="reader", kind="encoder", goes_with=("tiny",), quality=quality)
    response = await connect().post("/translate", files={"image": FILE})
    assert (response.json()["likeness"], response.headers["x-likeness"]) == (word, word or "unknown")


@pytest.mark.parametrize(
    ("recipe", "fields", "expected"),
    [
        ({}, {}, {}),
        ({"margin": 2}, {}, {"margin": 2}),
        ({"margin": 1, "crop": 0.8}, {}, {"margin": 1, "crop": 0.8}),
        ({"crop": 0.8}, {"fit": "crop"}, {"crop": 1.0}),
        ({"margin": 3}, {"fit": "pad"}, {"margin": 3, "pad": True}),
        ({"margin": 2}, {"invert": "true"}, {"margin": 2, "invert": True}),
        ({"margin": "none"}, {}, {}),
    ],
)
async def test_an_image_is_fitted_as_in_training(
    tiny_model: Callable[..., Path],
    connect: Connect,
    recipe: dict[str, Any],
    fields: dict[str, str],
    expected: dict[str, Any],
) -> None:
    """By the recipe in the generator's metadata, or as the request says; the recipe's margin is always added."""
    origin = {"seed": 0, "steps": 0, "images_seen": 0, "commit": "", "versions": {}}
    tiny_model(provenance=origin | {"experiment": {"domains": [{"name": "digit", **recipe}, {"name": "edge"}]}})
    reader = OnnxModel(tiny_model(("digit",), name="reader", kind="encoder", goes_with=("tiny",)))
    found = (await connect().post("/translate", files={"image": FILE}, data=fields)).json()
    image = fit(read_image(FILE), Fitting(reader.metadata.domains[0], **expected))
    latent = reader.run({"digit": image[np.newaxis], PREVIOUS: np.zeros((1, 8), np.float32)})[LATENT]
    assert np.allclose(found["latent"], latent[0], atol=1e-5)


async def test_a_model_needs_an_encoder(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """Without one the error names the generators that have one; an encoder of another shape or latent is none."""
    tiny_model(name="plain")
    tiny_model(name="read")
    tiny_model(("digit",), name="reader", kind="encoder", goes_with=("read",))
    tiny_model(("edge",), name="other_shape", kind="encoder", goes_with=("plain",))
    tiny_model(("digit", "edge"), name="of_two", kind="encoder", goes_with=("plain",))
    client = connect()
    check(await client.post("/translate", files={"image": FILE}), 422, "/model", ["read"])
    check(await client.post("/translate", files={"image": FILE}, data={"model": "nobody"}), 404, "/model")
    wrong = await client.post("/translate", files={"image": FILE}, data={"model": "read", "from": "edge"})
    check(wrong, 422, "/from", ["digit"])
    assert (await client.post("/translate", files={"image": FILE}, data={"model": "read"})).status_code == 200


@pytest.mark.parametrize(
    ("head", "write"),
    [
        ("data:image/png;base64,", lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n"),
        (" DATA:Image/PNG;BASE64,", str),
        ("data:image/png;base64,", lambda text: text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")),
    ],
)
@pytest.mark.usefixtures("encoded")
async def test_data_urls_are_read_as_browsers_do(connect: Connect, head: str, write: Callable[[str], str]) -> None:
    """Lines of base64, capitals and percent-encoding change nothing, nor does another media type of JSON."""
    client, plain = connect(), base64.b64encode(FILE).decode()
    first = await client.post("/translate", json={"image": f"data:image/png;base64,{plain}"})
    content = json.dumps({"image": head + write(plain)})
    again = await client.post("/translate", content=content, headers={"content-type": "application/vnd.x+json"})
    assert (again.status_code, again.content) == (200, first.content)


@pytest.mark.usefixtures("encoded")
async def test_url_safe_base64_gets_the_remedy(connect: Connect) -> None:
    """Its letters are not those of a data URL."""
    response = await connect().post("/translate", json={"image": "data:image/png;base64,_-8="})
    assert "URL-safe base64; write + for - and / for _" in response.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "status", "pointer"),
    [
        ({"content": FILE, "headers": {"content-type": "text/plain"}}, 415, "/content-type"),
        ({"content": FILE}, 415, "/content-type"),
        ({"data": {"from": "digit"}}, 415, "/content-type"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, ""),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, ""),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, ""),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 422, "/image"),
        ({"content": b"hello", "headers": {"content-type": "image/png"}}, 422, "/image"),
        ({"json": {}}, 422, "/image"),
        ({"json": {"image": "https://example.com/a.png"}}, 422, "/image"),
        ({"json": {"image": "file:///etc/passwd"}}, 422, "/image"),
        ({"json": {"image": "data:image/png;base64,?"}}, 422, "/image"),
        ({"json": {"image": "data:image/png;base64,aGVsbG8="}}, 422, "/image"),
        ({"json": {"image": 7}}, 422, "/image"),
        ({"files": {"picture": FILE}}, 422, "/picture"),
        ({"files": [("image", FILE), ("image", FILE)]}, 422, "/image"),
        ({"files": {"image": FILE}, "data": {"from": ["digit", "edge"]}}, 422, "/from"),
        ({"files": {"image": FILE}, "data": {"to": ["digit", "zebra"]}}, 422, "/to/1"),
        ({"files": {"image": FILE}, "data": {"fit": "squash"}}, 422, "/fit"),
        ({"files": {"image": FILE}, "data": {"format": "gif"}}, 422, "/format"),
        ({"files": {"image": FILE}, "data": {"invert": "perhaps"}}, 422, "/invert"),
        ({"files": {"image": FILE}, "data": {"scale": "2"}}, 422, "/scale"),
        ({"files": {"image": FILE}, "data": {"to": [""] * 200}}, 400, ""),
        ({"files": {"image": FILE}, "params": {"from": "digit"}}, 422, "/from"),
        ({"files": {"image": FILE}, "headers": {"x-request-timeout": "0"}}, 422, "/x-request-timeout"),
    ],
)
@pytest.mark.usefixtures("encoded")
async def test_wrong_requests_are_refused(
    connect: Connect, request_: dict[str, Any], status: int, pointer: str
) -> None:
    """Each gets the status and the field that is wrong; nothing is ever fetched."""
    check(await connect().post("/translate", **request_), status, pointer)


@pytest.mark.usefixtures("encoded")
async def test_a_file_of_another_name_is_told_the_name(connect: Connect) -> None:
    """The fields that a form may have include its image."""
    problem = (await connect().post("/translate", files={"file": FILE})).json()
    assert "image" in problem["errors"][0]["allowed"]
    assert "image" in problem["detail"]


@pytest.mark.usefixtures("encoded")
async def test_an_upload_may_be_larger_than_other_bodies(connect: Connect) -> None:
    """It has a limit of its own, which is checked before the body is read."""
    client, large = connect(max_body_bytes=200, max_upload_bytes=2000), saved(picture(40, 40), "BMP")
    assert len(large) > 2000 > len(FILE) > 200
    assert (await client.post("/translate", files={"image": FILE})).status_code == 200
    check(await client.post("/translate", files={"image": large}), 413)
    check(await client.post("/generate", content=FILE, headers={"content-type": "image/png"}), 413)


@pytest.mark.usefixtures("encoded")
async def test_an_image_of_too_many_pixels_is_refused(connect: Connect) -> None:
    """The limit is in the error."""
    file = saved(Image.new("1", (5000, 5000)), "PNG")
    check(await connect().post("/translate", files={"image": file}), 413, "/image", "at most 16777216 pixels")


@pytest.mark.usefixtures("encoded")
async def test_an_image_of_nothing_is_refused(connect: Connect) -> None:
    """Black ink on a transparent ground is all black, and a white sheet all white: neither has counterparts."""
    ink = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (5, 5, 9, 15))
    for image in (ink, Image.new("L", (20, 20), 255)):
        response = await connect().post("/translate", files={"image": saved(image, "PNG")})
        check(response, 422, "/image", "a picture of something")
        assert "invert=true" in response.json()["detail"]
    seen = await connect().post("/translate", files={"image": saved(ink, "PNG")}, data={"invert": "true"})
    assert seen.status_code == 200


async def test_a_late_translation_is_504(tiny_model: Callable[..., Path], connect: Connect) -> None:
    """The deadline covers decoding, passes and generation."""
    tiny_model()
    tiny_model(("digit",), name="reader", kind="encoder", goes_with=("tiny",), turns=200_000)
    headers = {"x-request-timeout": "0.3"}
    late = await connect().post("/translate", files={"image": FILE}, data={"refine": "15"}, headers=headers)
    check(late, 504)


@pytest.mark.usefixtures("encoded")
async def test_translations_are_counted_by_route(connect: Connect) -> None:
    """Requests, passes and generation are in the metrics, and each stage in Server-Timing."""
    client = connect()
    response = await client.post("/translate", files={"image": FILE}, data={"from": "digit"})
    stages = [part.partition(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert stages == ["decode", "queue", "run", "encode"]
    metrics = (await client.get("/metrics")).text
    assert 'cogan_http_requests_total{code="200",method="POST",route="/translate"} 1.0' in metrics
    assert 'cogan_samples_total{model="digit_encoder"} 2.0' in metrics
    assert 'cogan_samples_total{model="tiny"} 1.0' in metrics


@pytest.mark.usefixtures("encoded")
async def test_the_document_has_every_kind_of_body(connect: Connect) -> None:
    """Form, images and JSON, the fields of each, and the headers of the response."""
    operation = (await connect().get("/openapi.json")).json()["paths"]["/translate"]["post"]
    content = operation["requestBody"]["content"]
    images = {f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "bmp", "tiff")}
    assert set(content) == images | {"multipart/form-data", "application/json"}
    fields = {"model", "from", "to", "format", "refine", "fit", "invert", "scale"}
    for kind in ("multipart/form-data", "application/json"):
        assert set(content[kind]["schema"]["properties"]) == fields | {"image"}
    assert fields < {parameter["name"] for parameter in operation["parameters"]}
    assert "X-Latent" in operation["responses"]["200"]["headers"]
    assert json.dumps(operation).count("$ref")
