"""Limits are in the types: in the OpenAPI document, and applied while a request is parsed."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from service.api.options import parse_body, read_query
from service.api.schemas import GenerateQuery, GenerateRequest, InterpolateRequest, limited
from service.errors import RequestError, TooLarge
from service.http.middleware import HEADERS
from service.http.problems import problem_response
from service.latents import MAX_SEED
from service.metadata import MAX_LATENT_DIM
from service.v2.schemas import ControlRequest, InferRequest

MIB = 2**20
PAIRS = dict.fromkeys(("count", "seeds", "latents"), 64)
FRAMES = dict.fromkeys(("steps", "keyframes"), 256)
PairBody = limited(GenerateRequest, **PAIRS)
PairQuery = limited(GenerateQuery, **PAIRS)
FrameBody = limited(InterpolateRequest, **FRAMES)


def filled(field: str, item: str, before: str = "") -> bytes:
    """Return a body of a mebibyte: a list of as many equal items as fit."""
    times = (MIB - 200) // (len(item) + 1)
    return f'{{{before}"{field}":[{",".join([item] * times)}]}}'.encode()


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Do without garbage collection, which the service, too, makes rare."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def assert_quick(work: Callable[[], object], reading: Callable[[], object], times: float) -> None:
    """Check that work takes less than 20 ms of CPU time, or than so many times what reading takes.

    The best of five calls of each counts, or of up to thirty on a busy machine.
    """
    taken, read = list[float](), list[float]()
    for _ in range(30):
        taken.append(cpu_seconds(work))
        read.append(cpu_seconds(reading))
        if len(taken) >= 5 and min(taken) < max(0.02, times * min(read)):
            return
    pytest.fail(f"{min(taken):.4f} s, and reading takes {min(read):.4f} s")


def refusal(model: type[BaseModel], content: bytes, limits: dict[str, int]) -> Exception:
    """Return the error for a body that is refused, of which the response is small."""
    with pytest.raises((RequestError, RequestValidationError)) as caught:
        parse_body(model, content, limits)
    assert len(problem_response(caught.value).body) < 10_000
    return caught.value


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    ("model", "limits", "field", "item"),
    [
        (FrameBody, FRAMES, "keyframes", '{"seed":1}'),
        (FrameBody, FRAMES, "keyframes", '{"seed":1,"index":3}'),
        (FrameBody, FRAMES, "keyframes", '{"latent":[0,0,0,0,0,0,0,0]}'),
        (PairBody, PAIRS, "seeds", "7"),
        (PairBody, PAIRS, "seeds", "123456"),
        (PairBody, PAIRS, "latents", "[0,0,0,0,0,0,0,0]"),
    ],
)
def test_a_mebibyte_of_valid_items_is_refused_quickly(
    model: type[BaseModel], limits: dict[str, int], field: str, item: str
) -> None:
    """Over its limit a list is 413, within 20 ms of CPU time, or what reading so much JSON takes on a busy machine."""
    content = filled(field, item)
    error = refusal(model, content, limits)
    assert isinstance(error, TooLarge)
    assert (error.errors[0].pointer, error.errors[0].allowed) == (f"/{field}", f"at most {limits[field]}")
    assert field in error.detail
    assert_quick(lambda: refusal(model, content, limits), lambda: json.loads(content), times=1.5)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    ("model", "content"),
    [
        (FrameBody, filled("keyframes", "{}")),
        (FrameBody, b'{"keyframes":[{"seed":1},{"latent":[' + b",".join([b"0"] * 500_000) + b"]}]}"),
        (FrameBody, b'{"keyframes":[{%s}]}' % b",".join(b'"a%d":0' % i for i in range(90_000))),
        (PairBody, filled("seeds", '""')),
        (PairBody, filled("latents", "[]")),
        (PairBody, b'{"latents":[[' + b",".join([b"0"] * 500_000) + b"]]}"),
        (PairBody, filled("domains", '"edge"')),
        (PairBody, b"{%s}" % b",".join(b'"a%d":0' % i for i in range(90_000))),
        (InferRequest, filled("inputs", "{}")),
        (InferRequest, filled("outputs", '{"name":"a"}')),
        (
            InferRequest,
            b'{"inputs":[{"name":"latent","datatype":"FP32","shape":[' + b",".join([b"1"] * 500_000) + b"]}]}",
        ),
        (
            InferRequest,
            b'{"inputs":[{"name":"latent","datatype":"FP32","shape":[' + b",".join([b'""'] * 300_000) + b"]}]}",
        ),
        (ControlRequest, filled("parameters", "0")),
    ],
)
def test_a_mebibyte_of_wrong_items_is_refused_quickly(model: type[BaseModel], content: bytes) -> None:
    """Of wrong or too many items few are reported, and the CPU time is little more than that of reading the JSON."""
    limits = {"keyframes": 256} if model is FrameBody else {}
    assert_quick(lambda: refusal(model, content, limits), lambda: json.loads(content), times=3)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "query",
    [
        urlencode([("seeds", seed) for seed in range(6000)]),
        urlencode([("domains", "edge")] * 4000),
        urlencode([(f"a{i}", i) for i in range(6000)]),
        urlencode([(f"a{i % 3000}", i) for i in range(6000)]),
        urlencode([("seed", "1" * 4000)] * 15),
    ],
)
def test_a_long_query_is_refused_quickly(query: str) -> None:
    """A query of the length of a head is refused within 20 ms of CPU time, or little more than splitting it takes."""

    def refused() -> Exception:
        request = Request({"type": "http", "method": "GET", "query_string": query.encode(), "headers": [], HEADERS: {}})
        with pytest.raises((RequestError, RequestValidationError)) as caught:
            read_query(request, PairQuery, PAIRS)
        return caught.value

    assert len(problem_response(refused()).body) < 10_000
    assert_quick(refused, lambda: parse_qsl(query), times=3)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "field", "item", "pointer"),
    [
        ("/generate", "seeds", '""', "/seeds/0"),
        ("/generate", "latents", '""', "/latents/0"),
        ("/generate", "domains", "7", "/domains/0"),
        ("/generate", "domains", '"edge"', "/domains"),
        ("/interpolate", "keyframes", "{}", "/keyframes/0"),
        ("/v2/models/tiny/infer", "outputs", "7", "/outputs/0"),
    ],
)
async def test_of_a_million_wrong_items_the_first_is_reported(
    client: httpx.AsyncClient, path: str, field: str, item: str, pointer: str
) -> None:
    """The response to the largest body of wrong items is short, and points at the first."""
    content = f'{{"{field}":[{",".join([item] * (1_000_000 // (len(item) + 1)))}]}}'
    response = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    pointers = [wrong["pointer"] for wrong in response.json()["errors"]]
    assert pointer in pointers
    assert len(pointers) <= 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "sent", "pointer", "limit"),
    [
        ("GET", "/generate", {"seed": 1, "count": 6}, "/count", 5),
        ("GET", "/generate", {"seeds": list(range(6))}, "/seeds", 5),
        ("GET", "/interpolate", {"from": 1, "to": 2, "steps": 10}, "/steps", 9),
        ("POST", "/generate", {"seed": 1, "count": 6}, "/count", 5),
        ("POST", "/generate", {"seeds": list(range(6))}, "/seeds", 5),
        ("POST", "/generate", {"latents": [[0] * 8] * 6}, "/latents", 5),
        ("POST", "/interpolate", {"keyframes": [{"seed": 1}] * 2, "steps": 10}, "/steps", 9),
        ("POST", "/interpolate", {"keyframes": [{"seed": 1}] * 10, "steps": 2}, "/keyframes", 9),
    ],
)
async def test_what_is_over_a_limit_is_413_and_named(
    connect: Callable[..., httpx.AsyncClient],
    tiny_model: Callable[..., object],
    method: str,
    path: str,
    sent: dict[str, Any],
    pointer: str,
    limit: int,
) -> None:
    """Over a limit of the settings, a list or a number is 413 with its name and the limit, by query and by body."""
    tiny_model()
    client = connect(max_pairs=5, max_frames=9)
    body: dict[str, Any] = {"params" if method == "GET" else "json": sent}
    response = await client.request(method, path, **body)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    (wrong,) = response.json()["errors"]
    assert (wrong["pointer"], wrong["allowed"]) == (pointer, f"at most {limit}")
    assert wrong["place"] == ("query" if method == "GET" else "body")
    value = sent[pointer[1:]]
    assert str(wrong["value"]) == str(len(value) if isinstance(value, list) else value)
    assert f"'{pointer[1:]}'" in response.json()["detail"]


@pytest.mark.anyio
async def test_limits_are_in_the_document(
    connect: Callable[..., httpx.AsyncClient], tiny_model: Callable[..., object]
) -> None:
    """The document has the limits of the settings, and those of what is within a list."""
    tiny_model()
    document = (await connect(max_pairs=5, max_frames=9).get("/openapi.json")).json()

    def body(path: str) -> Any:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return schema["properties"] if "properties" in schema else named(schema["$ref"])["properties"]

    def named(reference: str) -> Any:
        return document["components"]["schemas"][reference.rpartition("/")[2]]

    def query(path: str) -> dict[str, Any]:
        return {one["name"]: one["schema"] for one in document["paths"][path]["get"]["parameters"]}

    def as_list(schema: Any) -> Any:
        return next(one for one in schema.get("anyOf", [schema]) if one.get("type") == "array")

    for properties in (body("/generate"), query("/generate")):
        assert properties["count"]["maximum"] == 5
        assert as_list(properties["seeds"])["maxItems"] == 5
        assert as_list(properties["seeds"])["items"]["maximum"] == MAX_SEED
        assert as_list(properties["domains"])["maxItems"] == 64
    assert as_list(body("/generate")["latents"])["maxItems"] == 5
    assert as_list(body("/generate")["latents"])["items"]["maxItems"] == MAX_LATENT_DIM
    assert query("/interpolate")["steps"]["maximum"] == body("/interpolate")["steps"]["maximum"] == 9
    keyframes = as_list(body("/interpolate")["keyframes"])
    assert keyframes["maxItems"] == 9
    keyframe = keyframes["items"] if "properties" in keyframes["items"] else named(keyframes["items"]["$ref"])
    assert as_list(keyframe["properties"]["latent"])["maxItems"] == MAX_LATENT_DIM
