"""/v2/models/{name}/infer, byte for byte: which tensors are accepted, which are refused, and with what message."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.onnx_model import OnnxModel
from service.http.access import BINARY_HEADER
from service.v2 import routes
from service.v2.tensors import JSON_CHUNK, MAX_JSON_VALUES, Inference, read_inference, write_response

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
    return head + values, {BINARY_HEADER: str(len(head))}


def check(response: httpx.Response, status: int, pointer: str, allowed: str) -> None:
    """Check that a response is a problem with the protocol's `error`, and points at what is wrong."""
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert problem["error"] == problem["detail"] != ""
    assert problem["errors"][0]["pointer"] == pointer
    assert allowed in str(problem["errors"][0]["allowed"])
    assert len(response.content) < 2000


async def test_the_same_latents_give_the_same_images_in_every_form(client: httpx.AsyncClient) -> None:
    """Flat, nested and binary latents give the images that /generate makes of them."""
    values = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    generated = await client.post("/generate", json={"latents": values.tolist(), "format": "npz"})
    arrays = np.load(io.BytesIO(generated.content))
    content, headers = binary(values.tobytes(), shape=[2, 8])
    responses = [
        await client.post(PATH, json=request(shape=[2, 8], data=values.ravel().tolist())),
        await client.post(PATH, json=request(shape=[2, 8], data=values.tolist())),
        await client.post(PATH, content=content, headers=headers),
    ]
    for response in responses:
        for output in response.json()["outputs"]:
            assert output["datatype"] == "UINT8"
            assert np.array_equal(np.reshape(output["data"], output["shape"]), arrays[output["name"]])
    assert "queue;dur=" in responses[0].headers["server-timing"]


async def test_outputs_choose_their_form_one_by_one(client: httpx.AsyncClient) -> None:
    """`binary_data_output` is for all, `binary_data` for one; bytes follow the JSON in its order."""
    outputs = [{"name": "edge"}, {"name": "digit", "parameters": {"binary_data": False}}]
    body = request() | {"id": "7", "outputs": outputs, "parameters": {"binary_data_output": True}}
    response = await client.post(PATH, json=body)
    length = int(response.headers[BINARY_HEADER])
    head = json.loads(response.content[:length])
    assert response.headers["content-type"] == "application/octet-stream"
    assert (head["id"], [output["name"] for output in head["outputs"]]) == ("7", ["edge", "digit"])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 10 * 9 * 3}
    assert len(response.content) - length == 10 * 9 * 3
    assert len(head["outputs"][1]["data"]) == 8 * 6


@pytest.mark.parametrize(
    ("changes", "pointer", "allowed"),
    [
        ({"name": "z"}, "/inputs/0/name", "latent"),
        ({"datatype": "FP16"}, "/inputs/0/datatype", "FP32"),
        ({"datatype": None}, "/inputs/0/datatype", "Required"),
        ({"shape": [8]}, "/inputs/0/shape", "at least 2"),
        ({"shape": [0, 8]}, "/inputs/0/shape/0", "1"),
        ({"shape": [1, 8, 1]}, "/inputs/0/shape", "[rows, 8]"),
        ({"shape": [1] * 5}, "/inputs/0/shape", "at most 4"),
        ({"shape": [1, 9]}, "/inputs/0/shape", "[rows, 8]"),
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
        ({"shape": [2, 8], "data": [[0] * 4, [0] * 12]}, "/inputs/0/data", "16 values"),
        ({"datatype": "UINT8"}, "/inputs/0/datatype", "FP32"),
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
        ({"inputs": [GOOD, GOOD]}, "/inputs/1/name", "each name once"),
        ({"outputs": [{"name": "dog"}]}, "/outputs/0/name", "edge"),
        ({"outputs": [{"name": "edge"}] * 2}, "/outputs/1/name", "digit"),
        ({"parameters": {"binary_data_output": "yes"}}, "/parameters/binary_data_output", "boolean"),
        ({"parameters": {"timeout": -1}}, "/parameters/timeout", "0"),
        ({"parameters": {"timeout": 10**400}}, "/parameters/timeout", str(10**15)),
        ({"id": 7}, "/id", "string"),
    ],
)
async def test_a_wrong_request_is_pointed_at(
    client: httpx.AsyncClient, changes: dict[str, Any], pointer: str, allowed: str
) -> None:
    """Known fields with wrong values are refused, each with what is allowed."""
    check(await client.post(PATH, json=request() | changes), 422, pointer, allowed)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"inputs": [GOOD | {"parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 32}}]},
            "shared memory",
        ),
        ({"outputs": [{"name": "edge", "parameters": {"shared_memory_region": "x"}}]}, "shared memory"),
        ({"outputs": [{"name": "edge", "parameters": {"classification": 3}}]}, "classification"),
    ],
)
async def test_what_would_change_the_tensors_is_refused_by_name(
    client: httpx.AsyncClient, changes: dict[str, Any], named: str
) -> None:
    """Parameters that mean other tensors than those in the body, or another form of outputs, are refused."""
    problem = (response := await client.post(PATH, json=request() | changes)).json()
    assert (response.status_code, problem["code"]) == (501, "unsupported")
    assert problem["error"].startswith(named)


async def test_what_means_nothing_here_is_ignored(client: httpx.AsyncClient) -> None:
    """Unknown fields and parameters, in a request, its inputs and its outputs, do not change the response."""
    outputs = [{"name": "edge", "parameters": {"content_type": "np"}, "more": {}}]
    tensor = GOOD | {"parameters": {"content_type": "np", "headers": {}}, "contents": None}
    plain = await client.post(PATH, json={"inputs": [GOOD], "outputs": [{"name": "edge"}]})
    extra = {"model_name": "other", "model_version": "9", "parameters": {"priority": 1, "sequence_id": 7}, "more": [{}]}
    full = await client.post(PATH, json={"inputs": [tensor], "outputs": outputs} | extra)
    assert (full.status_code, full.content) == (200, plain.content)


@pytest.mark.parametrize("parameters", [{"timeout": 0}, {"timeout": None}, {"binary_data_output": None}])
async def test_what_asks_for_the_default_is_the_default(client: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    """Triton's timeout of 0 is none of its own, and a null, which typed clients dump, is a field that is not set."""
    plain = await client.post(PATH, json={"inputs": [GOOD]})
    given = await client.post(PATH, json={"inputs": [GOOD], "parameters": parameters})
    assert (given.status_code, given.content) == (200, plain.content)


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
    problem = (response := await client.post(PATH, content=body, headers=headers)).json()
    assert response.status_code == 422
    assert allowed in problem["errors"][0]["allowed"]


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "99999", "9" * 5000, "\u00b2".encode()])
async def test_a_wrong_header_length_is_refused(client: httpx.AsyncClient, length: Any) -> None:
    """The length of the JSON is a number, and the body is as long at least."""
    response = await client.post(PATH, content=binary(b"\0" * 32)[0], headers={BINARY_HEADER: length})
    check(response, 422, "/inference-header-content-length", "a whole number up to")
    short = await client.post(PATH, content=binary(b"\0" * 32)[0], headers={BINARY_HEADER: "7"})
    assert (short.status_code, short.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "\x00", "nonsense"])
async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient, body: str) -> None:
    """A body that is not JSON is 400, whatever its content type: clients of the protocol send none."""
    response = await client.post(PATH, content=body)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_body")
    assert "not JSON" in response.json()["error"]


async def test_a_byte_order_mark_is_no_part_of_json(client: httpx.AsyncClient) -> None:
    """Editors and shells of Windows write one; UTF-16 is named."""
    text = json.dumps({"inputs": [GOOD]})
    assert (await client.post(PATH, content=text.encode("utf-8-sig"))).status_code == 200
    wrong = await client.post(PATH, content=text.encode("utf-16"))
    assert (wrong.status_code, wrong.json()["error"].rpartition("; ")[2]) == (400, "it is UTF-16, send UTF-8")


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
    """The protocol's clients read `error` for an unknown model, version or path; other routes lack it."""
    response = await client.post(path, json=request())
    assert (response.status_code, response.json()["error"]) == (status, response.json()["detail"])
    assert "error" not in (await client.get("/nothing")).json()


async def test_requests_wait_in_the_queue_of_their_model(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """They have the bound, the deadline and the errors of /generate; too many rows are 413."""
    tiny_model(turns=200_000)
    client = connect(max_pairs=2, max_frames=2, max_queue=2, threads=1, deadline_s=0.1, cache_bytes=0)
    pending = [client.get("/generate?seed=1"), *(client.post(PATH, json=request()) for _ in range(3))]
    responses = await asyncio.gather(*pending)
    assert sorted(response.status_code for response in responses) == [429, 429, 504, 504]
    assert [response.json()["error"] for response in responses[1:]] == [a.json()["detail"] for a in responses[1:]]
    response = await client.post(PATH, json=request(shape=[3, 8], data=[0] * 24))
    check(response, 413, "/inputs/0/shape/0", "at most 2")


async def test_a_request_may_shorten_its_deadline(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Its `timeout`, in microseconds, shortens the deadline."""
    tiny_model(turns=200_000)
    client = connect(deadline_s=60)
    response = await client.post(PATH, json=request() | {"parameters": {"timeout": 1000}})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


LARGE = {"day": (256, 256, 3), "night": (256, 256, 3)}


async def test_outputs_as_json_are_bounded(
    sized_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """More values than a JSON response may have are 413, which names binary data; as binary data they are sent."""
    sized_model(LARGE)
    client, tensor = connect(), GOOD | {"shape": [2, 8], "data": [0.5] * 16}
    response = await client.post(PATH, json={"inputs": [tensor]})
    check(response, 413, "/parameters/binary_data_output", "true")
    assert f"at most {MAX_JSON_VALUES} values" in response.json()["detail"]
    assert "request binary data" in response.json()["detail"]
    in_bytes = await client.post(PATH, json={"inputs": [tensor], "parameters": {"binary_data_output": True}})
    length = int(in_bytes.headers[BINARY_HEADER])
    assert len(in_bytes.content) - length == 2 * 2 * 256 * 256 * 3
    one = [
        {"name": "day", "parameters": {"binary_data": False}},
        {"name": "night", "parameters": {"binary_data": True}},
    ]
    mixed = await client.post(PATH, json={"inputs": [GOOD], "outputs": one})
    assert mixed.status_code == 200


async def test_json_is_written_in_parts(sized_model: Callable[..., Path]) -> None:
    """However large a JSON response is, no more than JSON_CHUNK values are written before the work may stop."""
    model = OnnxModel(sized_model({"day": (100, 90, 3)}))
    outputs = model.run({"latent": np.zeros((2, 8), np.float32)})
    inference = Inference("7", {}, ((model.outputs[0], False),), None)
    writing, parts = write_response(inference, model, outputs), 0
    while True:
        try:
            next(writing)
        except StopIteration as stop:
            head, _ = stop.value
            break
        parts += 1
    assert parts >= 2 * 100 * 90 * 3 / JSON_CHUNK
    (output,) = json.loads(head)["outputs"]
    assert np.array_equal(np.reshape(output["data"], output["shape"]), outputs["day"])


@pytest.mark.parametrize("nested", [False, True])
async def test_inputs_as_json_are_bounded(
    sized_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], nested: bool
) -> None:
    """More values than a JSON request may have are 413, flat or nested; as binary data they are accepted."""
    sized_model({"day": (128, 128, 3)}, kind="classifier")
    values = np.zeros((6, 128, 128, 3), np.uint8)
    data = values.tolist() if nested else values.ravel().tolist()
    about: dict[str, Any] = {"name": "day", "shape": list(values.shape), "datatype": "UINT8"}
    client = connect()
    response = await client.post(PATH, json={"inputs": [about | {"data": data}]})
    check(response, 413, "/inputs", f"at most {MAX_JSON_VALUES}")
    assert "send binary data" in response.json()["error"]
    body, headers = binary(values.tobytes(), **about)
    assert (await client.post(PATH, content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(("spaces", "off_loop"), [(0, False), (2**16, True)])
async def test_a_large_body_is_read_off_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, spaces: int, off_loop: bool
) -> None:
    """Parsing what takes over a millisecond delays no other request; a small body is worth no thread."""
    threads = []

    def read(*arguments: Any) -> Inference:
        threads.append(threading.current_thread())
        return read_inference(*arguments)

    monkeypatch.setattr(routes, "read_inference", read)
    response = await client.post(PATH, content=json.dumps(request()).encode() + b" " * spaces)
    assert response.status_code == 200
    assert [thread is not threading.current_thread() for thread in threads] == [off_loop]


def images(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return random images."""
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("kind", "shapes", "output"), [("classifier", [(8, 6, 1)], (2, 3)), ("encoder", [(8, 6, 1), (10, 9, 3)], (2, 8))]
)
async def test_models_that_read_images_infer(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    kind: str,
    shapes: list[tuple[int, ...]],
    output: tuple[int, ...],
) -> None:
    """A classifier and an encoder take inputs as numbers or bytes, and return what the model computes, as FP32."""
    model = OnnxModel(tiny_model(kind=kind))
    inputs: dict[str, NDArray[Any]] = {
        name: images((2, *shape)) for name, shape in zip(("digit", "edge"), shapes, strict=False)
    }
    if kind == "encoder":
        inputs["previous"] = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    (expected,) = model.run(inputs).values()
    assert expected.shape == output
    client, types = connect(), {tensor.name: tensor.datatype for tensor in model.inputs}
    about = [{"name": n, "shape": list(x.shape), "datatype": types[n]} for n, x in inputs.items()]
    flat = [one | {"data": array.ravel().tolist()} for one, array in zip(about, inputs.values(), strict=True)]
    nested = [one | {"data": array.tolist()} for one, array in zip(about, inputs.values(), strict=True)]
    for sent in (flat, nested):
        (found,) = (await client.post(PATH, json={"inputs": sent})).json()["outputs"]
        assert (found["datatype"], tuple(found["shape"])) == ("FP32", output)
        assert np.array_equal(np.float32(found["data"]).reshape(output), expected)
    in_bytes = [
        one | {"parameters": {"binary_data_size": x.nbytes}} for one, x in zip(about, inputs.values(), strict=True)
    ]
    head = json.dumps({"inputs": in_bytes, "parameters": {"binary_data_output": True}}).encode()
    content = head + b"".join(array.tobytes() for array in inputs.values())
    response = await client.post(PATH, content=content, headers={BINARY_HEADER: str(len(head))})
    values = response.content[int(response.headers[BINARY_HEADER]) :]
    assert np.array_equal(np.frombuffer(values, "<f4").reshape(output), expected)


@pytest.mark.parametrize(
    ("changes", "pointer", "allowed"),
    [
        ({"datatype": "FP32"}, "/inputs/0/datatype", "UINT8"),
        ({"shape": [1, 6, 8, 1]}, "/inputs/0/shape", "[rows, 8, 6, 1]"),
        ({"shape": [1, 48]}, "/inputs/0/shape", "[rows, 8, 6, 1]"),
        ({"data": np.zeros((1, 6, 8, 1), int).tolist()}, "/inputs/0/data", "48 values"),
        ({"data": [256] + [0] * 47}, "/inputs/0/data/0", "0 to 255"),
        ({"data": [0] * 47 + [-1]}, "/inputs/0/data/47", "0 to 255"),
        ({"data": [0.5] + [0] * 47}, "/inputs/0/data/0", "a whole number"),
        ({"data": [True] + [0] * 47}, "/inputs/0/data/0", "a whole number"),
        ({"name": "latent"}, "/inputs/0/name", "digit"),
    ],
)
async def test_wrong_images_are_pointed_at(
    tiny_model: Callable[..., Path],
    connect: Callable[..., httpx.AsyncClient],
    changes: dict[str, Any],
    pointer: str,
    allowed: str,
) -> None:
    """Wrong datatypes, shapes, orders of axes and values of images are refused, each with what is allowed."""
    tiny_model(kind="classifier")
    tensor = {"name": "digit", "shape": [1, 8, 6, 1], "datatype": "UINT8", "data": [0] * 48} | changes
    check(await connect().post(PATH, json={"inputs": [tensor]}), 422, pointer, allowed)


async def test_every_input_is_sent_once(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """An encoder of two domains needs the images of both, and latents, as many of one as of the other."""
    tiny_model(kind="encoder")
    client = connect()
    digit = {"name": "digit", "shape": [1, 8, 6, 1], "datatype": "UINT8", "data": [0] * 48}
    edges = {"name": "edge", "shape": [2, 10, 9, 3], "datatype": "UINT8", "data": [0] * 540}
    check(await client.post(PATH, json={"inputs": [digit]}), 422, "/inputs", "missing edge, previous")
    previous = {"name": "previous", "shape": [1, 8], "datatype": "FP32", "data": [0] * 8}
    sent = [digit, edges, previous]
    check(await client.post(PATH, json={"inputs": sent}), 422, "/inputs/1/shape/0", "1, as in the first")
    check(await client.post(PATH, json={"inputs": [digit, digit]}), 422, "/inputs/1/name", "edge")
