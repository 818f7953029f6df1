"""Every error is a problem+json that names what is allowed."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

pytestmark = pytest.mark.anyio
HUGE = 10**40


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the members that every problem has, and return it."""
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem.keys() == {"title", "status", "detail", "code", "errors", "request_id"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 2000
    return problem


@pytest.mark.parametrize(
    ("path", "body", "pointer", "value", "allowed"),
    [
        ("/generate", {"sed": 7}, "/sed", 7, "seed"),
        ("/generate", {"seed": "7"}, "/seed", "7", "integer"),
        ("/generate", {"seed": True}, "/seed", True, "integer"),
        ("/generate", {"seed": 1.5}, "/seed", 1.5, "integer"),
        ("/generate", {"seed": -1}, "/seed", -1, "0"),
        ("/generate", {"seed": 2**53}, "/seed", str(2**53), "9007199254740991"),
        ("/generate", {"seeds": [1, HUGE]}, "/seeds/1", "100000000000000000...0000000000000000000", "9007"),
        ("/generate", {"seeds": []}, "/seeds", "[]", "at least 1"),
        ("/generate", {"count": 0}, "/count", 0, "greater than or equal to 1"),
        ("/generate", {"format": "bmp"}, "/format", "bmp", "'png'"),
        ("/generate", {"format": "gif"}, "/format", "gif", "'png'"),
        ("/generate", {"truncation": 0.01}, "/truncation", 0.01, "0.1"),
        ("/generate", {"domains": ["digit", "dog"]}, "/domains/1", "dog", "edge"),
        ("/generate", {"domains": ["digit", "digit"]}, "/domains/1", "digit", "edge"),
        ("/generate", {"domains": []}, "/domains", "[]", "at least 1"),
        ("/generate", {"latents": [[0] * 8, [0] * 7]}, "/latents/1", "7 values", "8 values"),
        ("/generate", {"latents": [[0, 101]]}, "/latents/0/1", 101, "100"),
        ("/generate", {"seed": 1, "seeds": [1]}, "", "{'seed': 1, 'seeds': [1]}", "not both"),
        ("/generate", {"latents": [[0] * 8], "seed": 1}, "", None, "without seed"),
        ("/generate", [], "", "[]", "JSON object"),
        ("/interpolate", {}, "/keyframes", None, "Required"),
        ("/interpolate", {"keyframes": [{"seed": 1}]}, "/keyframes", "[{'seed': 1}]", "at least 2"),
        ("/interpolate", {"keyframes": [{"seed": 1}, {"sed": 2}]}, "/keyframes/1/sed", 2, "seed"),
        ("/interpolate", {"keyframes": [{"seed": 1}, {}]}, "/keyframes/1", "{}", "'latent'"),
        ("/interpolate", {"keyframes": [{"seed": 1}, {"latent": [0]}]}, "/keyframes/1/latent", None, "8 values"),
        ("/interpolate", {"keyframes": [{"seed": 1}] * 2, "steps": 1}, "/steps", 1, "2"),
        ("/interpolate", {"keyframes": [{"seed": 1}] * 2, "method": "x"}, "/method", "x", "'slerp'"),
    ],
)
async def test_a_wrong_field_is_pointed_at(
    client: httpx.AsyncClient, path: str, body: Any, pointer: str, value: Any, allowed: str
) -> None:
    """A body's wrong field is named by a JSON pointer, with its value and what is allowed."""
    problem = check_problem(await client.post(path, json=body), 422, "invalid_request")
    error = problem["errors"][0]
    assert (error["place"], error["pointer"]) == ("body", pointer)
    assert allowed in str(error["allowed"])
    assert value is None or error["value"] == value


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        ("NaN", 400, "malformed_body"),
        ("Infinity", 400, "malformed_body"),
        ("-Infinity", 400, "malformed_body"),
        ("1e999", 422, "invalid_request"),
    ],
)
@pytest.mark.parametrize("body", ['{"latents": [[%s]]}', '{"truncation": %s}'])
async def test_infinite_numbers_are_refused(
    client: httpx.AsyncClient, body: str, number: str, status: int, code: str
) -> None:
    """NaN and infinities, which Python's JSON parser accepts, are not JSON; a number too large for a float is wrong."""
    answer = await client.post("/generate", content=body % number, headers={"content-type": "application/json"})
    problem = check_problem(answer, status, code)
    assert [error["value"] for error in problem["errors"]] == (["inf"] if status == 422 else [])


@pytest.mark.parametrize(
    ("query", "pointer", "allowed"),
    [
        ("/generate?sed=7", "/sed", "seed"),
        ("/generate?seed=x", "/seed", "integer"),
        ("/generate?seed=9" + "9" * 5000, "/seed", "integer"),
        ("/generate?latents=1", "/latents", "seeds"),
        ("/generate?seed=1&seed=2", "/seed", "once"),
        ("/generate?seed=1&seed=1", "/seed", "once"),
        ("/interpolate?from=1&to=2&steps=3&to=4", "/to", "once"),
        ("/generate?domains=dog", "/domains/0", "digit"),
        ("/interpolate?from=1", "/to", "Required"),
        ("/interpolate?from=1&to=2&loop=perhaps", "/loop", "boolean"),
        ("/interpolate?from=1&to=2&start=3", "/start", "from"),
    ],
)
async def test_a_wrong_parameter_is_pointed_at(
    client: httpx.AsyncClient, query: str, pointer: str, allowed: str
) -> None:
    """A query's wrong or unknown parameter is named, with what is allowed."""
    problem = check_problem(await client.get(query), 422, "invalid_request")
    error = problem["errors"][0]
    assert (error["place"], error["pointer"]) == ("query", pointer)
    assert allowed in str(error["allowed"])


async def test_an_unknown_model_is_404_with_the_served_ones(client: httpx.AsyncClient) -> None:
    """Wherever the name is given."""
    for answer in (
        await client.post("/generate", json={"model": "nobody"}),
        await client.get("/interpolate?from=1&to=2&model=nobody"),
        await client.get("/models/nobody"),
    ):
        problem = check_problem(answer, 404, "unknown_model")
        assert problem["errors"][0]["allowed"] == ["tiny"]


@pytest.mark.parametrize(
    ("path", "body", "pointer", "limit"),
    [
        ("/generate", {"seed": 1, "count": 65}, "/count", "at most 64"),
        ("/generate", {"seed": 1, "count": HUGE}, "/count", "at most 64"),
        ("/generate", {"seeds": list(range(65))}, "/seeds", "at most 64"),
        ("/generate", {"seeds": list(range(32)), "count": 3}, "/count", "at most 2 for each of 32 seeds"),
        ("/generate", {"latents": [[0]] * 65}, "/latents", "at most 64"),
        ("/interpolate", {"keyframes": [{"seed": 1}, {"seed": 2}], "steps": 257}, "/steps", "at most 256"),
        ("/interpolate", {"keyframes": [{"seed": 1}, {"seed": 2}], "steps": HUGE}, "/steps", "at most 256"),
        ("/interpolate", {"keyframes": [{"seed": 1}] * 257, "steps": 2}, "/keyframes", "at most 256"),
        ("/interpolate", {"keyframes": [{"seed": 1}] * 3, "steps": 87, "loop": True}, "/steps", "at most 256 frames"),
    ],
)
async def test_too_many_images_are_413(
    client: httpx.AsyncClient, path: str, body: Any, pointer: str, limit: str
) -> None:
    """A response over a limit is refused before anything is computed, and the limit is named."""
    problem = check_problem(await client.post(path, json=body), 413, "too_large")
    assert any(number in problem["detail"] for number in ("64", "256"))
    assert problem["errors"][0]["pointer"] == pointer
    assert limit in problem["errors"][0]["allowed"]


@pytest.mark.parametrize(
    "name", ["..%2ftiny", "..%2f..%2fetc%2fpasswd", "%2e%2e%2ftiny", "tiny%2f..%2ftiny", "%00", "tiny%00"]
)
async def test_a_name_is_never_a_path(client: httpx.AsyncClient, name: str) -> None:
    """What leads out of the models folder, or into it by another way, is no model."""
    for answer in (
        await client.get(f"/models/{name}"),
        await client.get(f"/generate?seed=1&model={name}"),
        await client.post("/generate", json={"model": unquote(name)}),
    ):
        assert answer.json()["code"] in ("unknown_model", "unknown_path")
        check_problem(answer, 404, answer.json()["code"])


@pytest.mark.parametrize("seed", [7.0, 7])
async def test_whole_numbers_may_have_a_point(client: httpx.AsyncClient, seed: float) -> None:
    """JSON has one kind of number: 7.0 is 7, as the document's word `integer` says."""
    answer = await client.post("/generate", json={"seed": seed})
    assert answer.json()["pairs"][0]["seed"] == 7


async def chunks(size: int) -> AsyncIterator[bytes]:
    """Send a body without saying how long it is."""
    for _ in range(size // 100):
        yield b" " * 100


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_413(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], announced: bool
) -> None:
    """With Content-Length it is refused unread, without one when it grows too long."""
    tiny_model()
    content = b" " * 2000 if announced else chunks(2000)
    answer = await connect(max_body_bytes=1000).post("/generate", content=content)
    assert "1000 bytes" in check_problem(answer, 413, "too_large")["detail"]


@pytest.mark.parametrize("body", ["{", "", '{"seed": 7', "[" * 100_000, f'{{"seed": {"9" * 5000}}}', "\x00"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, body: str) -> None:
    """Truncated, endless and too deep bodies are refused as such."""
    answer = await client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    check_problem(answer, answer.status_code, "malformed_body" if body else "invalid_request")


async def test_what_is_compressed_is_refused_by_name(client: httpx.AsyncClient) -> None:
    """As Triton's client sends it where it is asked to, and some others do unasked."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for path in ("/generate", "/v2/models/tiny/infer"):
        answer = await client.post(path, content=gzip.compress(b"{}"), headers=headers)
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
        assert answer.json()["detail"] == "Content-Encoding 'gzip' is not supported; send the body uncompressed"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", "nonsense"])
async def test_another_content_type_is_415(client: httpx.AsyncClient, kind: str) -> None:
    """A body that is not called JSON is not guessed at."""
    answer = await client.post("/generate", content=b'{"seed": 7}', headers={"content-type": kind})
    assert "application/json" in check_problem(answer, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize("accept", ["image/tiff", "text/html", "application/json;q=0, image/tiff"])
async def test_an_unknown_format_is_406(client: httpx.AsyncClient, accept: str) -> None:
    """Who accepts nothing that there is, is told what there is."""
    problem = check_problem(await client.get("/generate?seed=1", headers={"accept": accept}), 406, "not_acceptable")
    assert "image/png" in problem["errors"][0]["allowed"]


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    """What no route answers is answered in the same form, with the methods that a path has."""
    check_problem(await client.get("/nothing"), 404, "unknown_path")
    check_problem(await client.get("/generate/"), 404, "unknown_path")
    answer = await client.delete("/generate")
    check_problem(answer, 405, "wrong_method")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_a_full_queue_is_429_and_a_passed_deadline_504(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]
) -> None:
    """Who cannot be drawn in time is told so in time, and when to come again."""
    tiny_model(turns=200_000)
    client = connect(max_pairs=2, max_frames=2, max_queue=2, threads=1, deadline_s=0.1, cache_bytes=0)
    answers = await asyncio.gather(*(client.get(f"/generate?seed={seed}") for seed in range(6)))
    full = [answer for answer in answers if answer.status_code == 429]
    late = [answer for answer in answers if answer.status_code == 504]
    assert (len(full), len(late)) == (4, 2)
    check_problem(late[0], 504, "deadline_exceeded")
    assert "queue holds 2" in check_problem(full[0], 429, "queue_full")["detail"]
    assert int(full[0].headers["retry-after"]) >= 1


async def test_a_failing_run_is_500_without_its_inside(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """What the model stumbled over is in the log, not in the answer; the next request is answered."""
    answer = await client.post("/generate", json={"latents": [[60] + [0] * 7]})
    assert "onnx" not in check_problem(answer, 500, "run_failed")["detail"].lower()
    assert "indices element out of data bounds" in caplog.text
    assert (await client.get("/generate?seed=1")).status_code == 200
