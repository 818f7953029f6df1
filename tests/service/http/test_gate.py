"""Who may: holders of a key, not too often, and pages of listed origins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from service.app import create_app
from service.errors import SettingsError
from service.http.gate import Gate
from service.http.rate_limit import RateLimit
from service.processes.channel import Channel
from service.processes.siblings import Siblings
from service.settings import Settings
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio
ONE, TWO = "0123456789abcdef", "a-second-key-of-someone"
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture(autouse=True)
def tiny(tiny_model: Callable[..., Path]) -> None:
    """Have a model to serve."""
    tiny_model()


@pytest.mark.parametrize("key", [ONE, TWO])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_any_key_in_either_header_lets_in(
    connect: Connect, tmp_path: Path, header: str, key: str
) -> None:
    """Keys of the environment and of the file are worth the same."""
    file = tmp_path / "keys"
    file.write_text(f"# of the second\n\n{TWO}\n")
    client = connect(api_keys=ONE, api_keys_file=file)
    value = f"Bearer {key}" if header == "authorization" else key
    assert (await client.get("/generate?seed=1", headers={header: value})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {ONE}x"},
        {"authorization": f"Basic {ONE}"},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
        {"x-api-key": ONE[:-1]},
        {"x-api-key": "\x7f\t"},
    ],
)
async def test_without_a_right_key_it_is_401(connect: Connect, headers: dict[str, str]) -> None:
    """A problem says how to bring a key, and no more; the body is not even read."""
    client = connect(api_keys=f"{ONE}, {TWO}", max_body_bytes=1)
    for path in ("/models", "/nothing", "/models/tiny"):
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert "Authorization: Bearer" in answer.json()["detail"]
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="cogan"')
        assert ("invalid_token" in challenge) == bool(headers)
        assert ONE not in answer.text
    assert (await client.post("/generate", content=b"too long", headers=headers)).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_health_and_documents_need_no_key(connect: Connect, path: str) -> None:
    """Machines that watch and browsers that open a page send no header."""
    assert (await connect(api_keys=ONE).get(path)).status_code == 200


async def test_the_document_says_which_keys_there_are(connect: Connect) -> None:
    """With keys, every guarded operation names the schemes and the 401; without, none does."""
    for keys in (None, ONE):
        document = (await connect(api_keys=keys).get("/openapi.json")).json()
        operation = document["paths"]["/generate"]["get"]
        assert ("401" in operation["responses"]) == ("security" in operation) == bool(keys)
        assert ("securitySchemes" in document["components"]) == bool(keys)
        assert "security" not in document["paths"]["/livez"]["get"]


@pytest.mark.parametrize("keys", ["short", f"{ONE},", "with spaces in between", "ü" * 20])
def test_a_weak_key_stops_the_start_and_is_not_shown(models_dir: Path, keys: str) -> None:
    """The line says which key it is by its place."""
    with pytest.raises(SettingsError, match=r"API key \d of \d is not a key: allowed are 16") as caught:
        create_app(Settings(models_dir=models_dir, api_keys=SecretStr(keys)))
    assert keys not in str(caught.value)


@pytest.mark.parametrize("content", [None, "# none\n"])
def test_a_file_without_keys_stops_the_start(models_dir: Path, tmp_path: Path, content: str | None) -> None:
    """A service that should be closed is not open by mistake."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"COGAN_API_KEYS_FILE = '.*keys' (holds no key|cannot be read)"):
        create_app(Settings(models_dir=models_dir, api_keys_file=file))


async def test_too_many_requests_are_429_with_a_true_wait(connect: Connect) -> None:
    """After Retry-After the next one is let in; others, and health, are not held back."""
    client = connect(rate_limit=2, rate_burst=2, api_keys=f"{ONE},{TWO}")
    me, you = {"x-api-key": ONE}, {"x-api-key": TWO}
    answers = [await client.get("/models", headers=me) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert (await client.get("/models", headers=you)).status_code == 200
    text = (await client.get("/metrics")).text
    assert 'cogan_rejected_total{reason="rate_limit"} 1.0' in text
    await asyncio.sleep(int(answers[2].headers["retry-after"]))
    assert (await client.get("/models", headers=me)).status_code == 200


async def test_the_limit_ends_with_the_process_that_counts() -> None:
    """What still comes to another process while the service ends is answered, not refused."""
    siblings = Siblings()
    gate = Gate(None, RateLimit(1, 1), Metrics(), siblings)
    near, far = socket.socketpair()
    siblings.follow(line := await Channel.over(near, "the first process", siblings.answer))
    far.close()
    await line.ended
    for _ in range(3):
        await gate.admit({"path": "/generate", "client": ("::1", 1)}, {})
    line.close()


async def test_guessing_keys_is_limited_by_address(connect: Connect) -> None:
    """A wrong key costs a token of the address that it came from."""
    client = connect(rate_limit=0.1, rate_burst=2, api_keys=ONE)
    guesses = [await client.get("/models", headers={"x-api-key": f"guess-{i}"}) for i in range(3)]
    assert [answer.status_code for answer in guesses] == [401, 401, 429]


async def test_pages_of_other_origins_may_not_read(connect: Connect) -> None:
    """Without a list no origin is allowed."""
    answer = await connect().get("/models", headers={"origin": "https://a.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_pages_of_listed_origins_may(connect: Connect) -> None:
    """They are asked nothing in the preflight, and they can read errors too."""
    client = connect(cors_origins="https://a.example, https://b.example", api_keys=ONE)
    origin = {"origin": "https://b.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    preflight = await client.options("/generate", headers=origin | asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (
        200,
        origin["origin"],
    )
    refused = await client.get("/models", headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["origin"])
    other = await client.get("/models", headers={"origin": "https://c.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/models", "/nothing", "/generate?seed=1&format=png", "/livez"])
async def test_every_answer_is_told_how_to_be_taken(connect: Connect, path: str) -> None:
    """Browsers guess no types and frame nothing; and nothing says what the service is made of."""
    answer = await connect().get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert not any(name in str(answer.headers).lower() for name in ("uvicorn", "fastapi", "starlette"))
