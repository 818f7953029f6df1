"""/v2/models/{name}/infer, byte for byte: what is taken, what is refused, and how it is said."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.wire.inference import HEADER_LENGTH

pytestmark = pytest.mark.anyio
PATH = "/v2/models/tiny/infer"
GOOD = {"name": "latent", "shape": [1, 8], "datatype": "FP32", "data": [0.5] * 8}


def request(**changes: Any) -> dict[str, Any]:
    """Write a request; `changes` replace fields of its input, and None drops one."""
    tensor = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return {"inputs": [tensor]}


def binary(values: bytes, size: int | None = None, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Write a request whose latents come as bytes; return its body and headers."""
    parameters = {"binary_data_size": len(values) if size is None else size}
    head = json.dumps(request(data=None, parameters=parameters, **changes)).encode()
    return head + values, {HEADER_LENGTH: str(len(head))}


def check(answer: httpx.Response, status: int, pointer: str, allowed: str) -> None:
    """Check that an answer is a problem with the protocol's `error`, and points at what is wrong."""
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert problem["error"] == problem["detail"] != ""
    assert problem["errors"][0]["pointer"] == pointer
    assert allowed in str(problem["errors"][0]["allowed"])
    assert len(answer.content) < 2000


async def test_the_same_latents_are_the_same_images_by_every_way(client: httpx.AsyncClient) -> None:
    """Flat, nested and binary latents have the images that /generate draws of them."""
    values = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    drawn = await client.post("/generate", json={"latents": values.tolist(), "format": "npz"})
    arrays = np.load(io.BytesIO(drawn.content))
    content, headers = binary(values.tobytes(), shape=[2, 8])
    answers = [
        await client.post(PATH, json=request(shape=[2, 8], data=values.ravel().tolist())),
        await client.post(PATH, json=request(shape=[2, 8], data=values.tolist())),
        await client.post(PATH, content=content, headers=headers),
    ]
    for answer in answers:
        for output in answer.json()["outputs"]:
            assert output["datatype"] == "UINT8"
            assert np.array_equal(np.reshape(output["data"], output["shape"]), arrays[output["name"]])
    assert "queue;dur=" in answers[0].headers["server-timing"]


async def test_outputs_choose_their_form_one_by_one(client: httpx.AsyncClient) -> None:
    """`binary_data_output` is for all, `binary_data` for one; bytes follow the JSON in its order."""
    outputs = [{"name": "edge"}, {"name": "digit", "parameters": {"binary_data": False}}]
    body = request() | {"id": "7", "outputs": outputs, "parameters": {"binary_data_output": True}}
    answer = await client.post(PATH, json=body)
    length = int(answer.headers[HEADER_LENGTH])
    head = json.loads(answer.content[:length])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (head["id"], [output["name"] for output in head["outputs"]]) == ("7", ["edge", "digit"])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 10 * 9 * 3}
    assert len(answer.content) - length == 10 * 9 * 3
    assert len(head["outputs"][1]["data"]) == 8 * 6


@pytest.mark.parametrize(
    ("changes", "pointer", "allowed"),
    [
        ({"name": "z"}, "/inputs/0/name", "latent"),
        ({"datatype": "FP16"}, "/inputs/0/datatype", "FP32"),
        ({"datatype": None}, "/inputs/0/datatype", "Required"),
        ({"shape": [8]}, "/inputs/0/shape", "at least 2"),
        ({"shape": [0, 8]}, "/inputs/0/shape/0", "1"),
        ({"shape": [1, 8, 1]}, "/inputs/0/shape", "at most 2"),
        ({"shape": [1, 9]}, "/inputs/0/shape/1", "8, the model's latent_dim"),
        ({"shape": ["1", 8]}, "/inputs/0/shape/0", "integer"),
        ({"shape": [2, 8]}, "/inputs/0/data", "16 values for the shape [2, 8]"),
        ({"data": [0.5] * 7}, "/inputs/0/data", "8 values"),
        ({"data": [[0.5] * 4] * 2}, "/inputs/0/data", "8 values"),
        ({"data": []}, "/inputs/0/data", "8 values"),
        ({"data": None}, "/inputs/0", "data or binary_data_size"),
        ({"parameters": {"binary_data_size": 32}}, "/inputs/0", "data or binary_data_size"),
        ({"data": [0] * 7 + [101]}, "/inputs/0/data/7", "-100 to 100"),
        ({"data": [10**400] + [0] * 7}, "/inputs/0/data/0", "-100 to 100"),
        ({"data": [True] * 8}, "/inputs/0/data/0", "a number"),
        ({"data": ["0"] * 8}, "/inputs/0/data/0", "a number"),
        ({"data": [None] * 8}, "/inputs/0/data/0", "a number"),
        ({"data": [[[0] * 8]]}, "/inputs/0/data", "8 values"),
        (
            {"parameters": {"shared_memory_region": "x"}},
            "/inputs/0/parameters/shared_memory_region",
            "binary",
        ),
    ],
)
async def test_a_wrong_input_is_pointed_at(
    client: httpx.AsyncClient, changes: dict[str, Any], pointer: str, allowed: str
) -> None:
    """Wrong names, datatypes, shapes, numbers of values and values are refused, each with what is allowed."""
    check(await client.post(PATH, json=request(**changes)), 422, pointer, allowed)


@pytest.mark.parametrize(
    ("changes", "pointer", "allowed"),
    [
        ({"inputs": []}, "/inputs", "at least 1"),
        ({"inputs": [GOOD, GOOD]}, "/inputs", "at most 1"),
        ({"outputs": [{"name": "dog"}]}, "/outputs/0/name", "edge"),
        ({"outputs": [{"name": "edge"}] * 2}, "/outputs/1/name", "digit"),
        (
            {"outputs": [{"name": "edge", "parameters": {"classification": 3}}]},
            "/outputs/0/parameters/classification",
            "binary_data",
        ),
        ({"parameters": {"priority": 1}}, "/parameters/priority", "timeout"),
        ({"parameters": {"timeout": 0}}, "/parameters/timeout", "1"),
        ({"parameters": {"timeout": 10**400}}, "/parameters/timeout", str(10**15)),
        ({"id": 7}, "/id", "string"),
        ({"ids": "7"}, "/ids", "inputs"),
    ],
)
async def test_a_wrong_request_is_pointed_at(
    client: httpx.AsyncClient, changes: dict[str, Any], pointer: str, allowed: str
) -> None:
    """What the service does not do is refused, not passed over: a client would wait for it in vain."""
    check(await client.post(PATH, json=request() | changes), 422, pointer, allowed)


@pytest.mark.parametrize(
    ("content", "size", "allowed"),
    [
        (b"\0" * 28, None, "32 for the shape [1, 8]"),
        (b"\0" * 36, None, "32 for the shape [1, 8]"),
        (b"\0" * 28, 32, "number of bytes"),
        (b"\0" * 36, 32, "number of bytes"),
        (np.full(8, np.nan, np.float32).tobytes(), None, "-100 to 100"),
        (np.full(8, -np.inf, np.float32).tobytes(), None, "-100 to 100"),
    ],
)
async def test_wrong_binary_data_are_refused(
    client: httpx.AsyncClient, content: bytes, size: int | None, allowed: str
) -> None:
    """Too few bytes, too many, and values that are no numbers."""
    body, headers = binary(content, size)
    problem = (answer := await client.post(PATH, content=body, headers=headers)).json()
    assert answer.status_code == 422
    assert allowed in problem["errors"][0]["allowed"]


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "99999", "9" * 5000, "\u00b2".encode()])
async def test_a_wrong_header_length_is_refused(client: httpx.AsyncClient, length: Any) -> None:
    """The length of the JSON is a number, and the body is as long at least."""
    answer = await client.post(PATH, content=binary(b"\0" * 32)[0], headers={HEADER_LENGTH: length})
    check(answer, 422, "/inference-header-content-length", "a whole number up to")
    short = await client.post(PATH, content=binary(b"\0" * 32)[0], headers={HEADER_LENGTH: "7"})
    assert (short.status_code, short.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "\x00", "nonsense"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, body: str) -> None:
    """Whatever its content type says: clients of the protocol send none."""
    answer = await client.post(PATH, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert "not JSON" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/tiny/versions/2/infer", 404),
        ("/v2/models/tiny/versions/2/nothing", 404),
        ("/v2/nothing", 404),
        ("/v2/health/live", 405),
    ],
)
async def test_every_problem_below_v2_has_error(client: httpx.AsyncClient, path: str, status: int) -> None:
    """The protocol's clients read why a model, version, path or method is none; others lack the member."""
    answer = await client.post(path, json=request())
    assert (answer.status_code, answer.json()["error"]) == (status, answer.json()["detail"])
    assert "error" not in (await client.get("/nothing")).json()


async def test_requests_wait_in_the_queue_of_all(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """The same bound, the same deadline and the same errors as /generate; too many pairs are 413."""
    tiny_model(turns=200_000)
    client = connect(max_pairs=2, max_frames=2, max_queue=2, threads=1, deadline_s=0.1, cache_bytes=0)
    asking = [client.get("/generate?seed=1"), *(client.post(PATH, json=request()) for _ in range(3))]
    answers = await asyncio.gather(*asking)
    assert sorted(answer.status_code for answer in answers) == [429, 429, 504, 504]
    assert [answer.json()["error"] for answer in answers[1:]] == [a.json()["detail"] for a in answers[1:]]
    answer = await client.post(PATH, json=request(shape=[3, 8], data=[0] * 24))
    check(answer, 413, "/inputs/0/shape/0", "at most 2")


async def test_a_request_may_be_less_patient(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Its `timeout`, in microseconds, shortens the deadline, and never lengthens it."""
    tiny_model(turns=200_000)
    client = connect(deadline_s=60)
    answer = await client.post(PATH, json=request() | {"parameters": {"timeout": 1000}})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
