"""Access control: API keys, rate limits per client, and which pages of other origins may send requests."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from service.app import create_app
from service.errors import Forbidden, SettingsError
from service.http.access import MAX_BUCKETS, RateLimit, refuse_cross_site
from service.settings import Settings
from tests.running import listening

pytestmark = pytest.mark.anyio
ONE, TWO = "0123456789abcdef", "a-second-key-of-someone"
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture(autouse=True)
def tiny(tiny_model: Callable[..., Path]) -> None:
    """Have a model to serve."""
    tiny_model()


# API keys


@pytest.mark.parametrize("key", [ONE, TWO])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_any_key_in_either_header_lets_in(connect: Connect, tmp_path: Path, header: str, key: str) -> None:
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
    with pytest.raises(SettingsError, match=r"COGAN_API_KEYS, key \d: not a key; allowed are 16") as caught:
        create_app(Settings(models_dir=models_dir, api_keys=SecretStr(keys)))
    assert keys not in str(caught.value)


def test_a_weak_key_of_the_file_is_named_by_its_line(models_dir: Path, tmp_path: Path) -> None:
    """A comment may be indented; behind a key it is none, and is not shown either."""
    file = tmp_path / "keys"
    file.write_text(f"  # laptops\n{ONE}\n\n{TWO} # of the second\n")
    with pytest.raises(
        SettingsError, match=r"COGAN_API_KEYS_FILE = '.*keys', line 4: not a key; .*line of its own"
    ) as caught:
        create_app(Settings(models_dir=models_dir, api_keys_file=file))
    assert TWO not in str(caught.value)


async def test_a_key_beside_a_proxys_own_authorization_lets_in(connect: Connect) -> None:
    """A token that a proxy adds as Authorization does not hide the key in X-API-Key."""
    client = connect(api_keys=ONE)
    for own in ("Bearer a.token.of-the-proxy", "Basic dXNlcjpwYXNz"):
        headers = {"authorization": own, "x-api-key": ONE}
        assert (await client.get("/generate?seed=1", headers=headers)).status_code == 200


@pytest.mark.parametrize("content", [None, "# none\n"])
def test_a_file_without_keys_stops_the_start(models_dir: Path, tmp_path: Path, content: str | None) -> None:
    """A service that should be closed is not open by mistake."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"COGAN_API_KEYS_FILE = '.*keys' (holds no key|cannot be read)"):
        create_app(Settings(models_dir=models_dir, api_keys_file=file))


async def test_guessing_keys_is_limited_by_address(connect: Connect) -> None:
    """A wrong key costs a token of the address that it came from."""
    client = connect(rate_limit=0.1, rate_burst=2, api_keys=ONE)
    guesses = [await client.get("/models", headers={"x-api-key": f"guess-{i}"}) for i in range(3)]
    assert [answer.status_code for answer in guesses] == [401, 401, 429]


# Rate limits


@settings(deadline=None)  # a busy machine may halt it
@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 10), max_size=80))
def test_a_bucket_admits_what_it_says(rate: float, burst: int, pauses: list[float]) -> None:
    """No more pass than the burst and what the rate adds; after the wait one does, not before."""
    limit, now = RateLimit(rate, burst), 0.0
    for passed, pause in enumerate(pauses, 1):
        now += pause
        wait = limit.wait("me", now)
        if wait:
            assert limit.wait("me", now + wait * 0.9) > 0
            now += wait + 1e-6
            assert limit.wait("me", now) == 0
        assert passed <= burst + now * rate + 1e-3


def test_each_client_has_its_own_bucket() -> None:
    """One who sends too much takes nothing from others."""
    limit = RateLimit(1, 2)
    assert [bool(limit.wait(name, 0.0)) for name in ("me", "me", "me", "you")] == [False, False, True, False]


def test_full_buckets_are_dropped() -> None:
    """A million addresses that came once do not take memory for ever; one that must wait still must."""
    limit = RateLimit(1, 1)
    for i in range(3 * MAX_BUCKETS):
        limit.wait(str(i), i * 0.01)
    assert len(limit._full_at) <= MAX_BUCKETS + 1
    now = 3 * MAX_BUCKETS * 0.01
    limit.wait("me", now)
    for i in range(MAX_BUCKETS):  # of one moment: they make it drop those that are full by then
        limit.wait(f"other {i}", now)
    assert limit.wait("me", now) > 0


async def test_too_many_requests_are_429_with_a_true_wait(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Retry-After the next one is let in; others, and health, are not held back."""
    now = 1000.0
    monkeypatch.setattr("service.http.access.time", SimpleNamespace(monotonic=lambda: now))
    client = connect(rate_limit=2, rate_burst=2, api_keys=f"{ONE},{TWO}")
    me, you = {"x-api-key": ONE}, {"x-api-key": TWO}
    answers = [await client.get("/models", headers=me) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert (await client.get("/models", headers=you)).status_code == 200
    text = (await client.get("/metrics")).text
    assert 'cogan_rejected_total{reason="rate_limit"} 1.0' in text
    now += int(answers[2].headers["retry-after"])
    assert (await client.get("/models", headers=me)).status_code == 200


def statuses_of(app: Any, clients: list[str]) -> Callable[[], Any]:
    """Return what sends a request from each of these addresses and returns the statuses."""

    async def send() -> list[int]:
        answers = []
        for address in clients:
            transport = httpx.ASGITransport(app, client=(address, 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                answers.append((await client.get("/models")).status_code)
        return answers

    return send


SAME_CLIENT = [
    pytest.param(["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:0:1:2:3:4"], id="one /64"),
    pytest.param(["fe80::1", "fe80::1%eth0", "fe80::2%wlan1"], id="zone ids"),
    pytest.param(["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"], id="IPv4-mapped"),
]
OTHER_CLIENTS = [
    pytest.param(["2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::1"], id="three /64"),
    pytest.param(["192.0.2.7", "192.0.2.8", "::ffff:192.0.2.9"], id="three IPv4 addresses"),
]


@pytest.mark.parametrize("clients", SAME_CLIENT)
@pytest.mark.parametrize(("keys", "passed"), [(None, 200), (ONE, 401)])
async def test_one_client_may_have_many_addresses(
    models_dir: Path, clients: list[str], keys: str | None, passed: int
) -> None:
    """A /64 of IPv6 is one client, and so is an IPv4 address written as IPv6; for requests and for guesses of keys."""
    app = create_app(
        Settings(models_dir=models_dir, rate_limit=0.01, rate_burst=2, api_keys=SecretStr(keys) if keys else None)
    )
    assert await statuses_of(app, clients)() == [passed, passed, 429]


@pytest.mark.parametrize("clients", OTHER_CLIENTS)
async def test_other_networks_are_other_clients(models_dir: Path, clients: list[str]) -> None:
    """One does not use up the limit of another."""
    app = create_app(Settings(models_dir=models_dir, rate_limit=0.01, rate_burst=1))
    assert await statuses_of(app, clients)() == [200, 200, 200]


@pytest.mark.parametrize(
    ("forwarded", "passed"),
    [
        (["2001:db8::1", "[2001:db8::2]:443", "2001:db8::3"], [200, 200, 429]),
        (["192.0.2.7", "::ffff:192.0.2.7", "192.0.2.7:443"], [200, 200, 429]),
        (["2001:db8::1", "2001:db8:0:1::1", "192.0.2.7"], [200, 200, 200]),
        (["192.0.2.1, 2001:db8::1", "192.0.2.2, 2001:db8::2", "192.0.2.3, 2001:db8::3"], [200, 200, 429]),
    ],
    ids=["one /64", "one IPv4 address", "three clients", "forged before the proxy's"],
)
async def test_behind_a_trusted_proxy_the_client_counts(
    models_dir: Path, forwarded: list[str], passed: list[int]
) -> None:
    """The last address of X-Forwarded-For that is not trusted is the client, in every form that proxies write."""
    async with (
        listening(models_dir, rate_limit=0.01, rate_burst=2) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answers = [await client.get("/models", headers={"x-forwarded-for": value}) for value in forwarded]
    assert [answer.status_code for answer in answers] == passed


async def test_a_client_over_its_limit_delays_no_other(models_dir: Path) -> None:
    """While one key gets hundreds of 429, another key is answered as quickly as before."""
    limits: dict[str, Any] = {"rate_limit": 0.01, "rate_burst": 310, "api_keys": SecretStr(f"{ONE},{TWO}")}
    async with (
        listening(models_dir, **limits) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        before = await median_seconds(client)
        refused = 0
        while refused < 300:
            answers = await asyncio.gather(*(client.get("/models", headers={"x-api-key": ONE}) for _ in range(100)))
            refused += sum(answer.status_code == 429 for answer in answers)
        after = [await median_seconds(client) for _ in range(5)]  # a busy machine may halt it in one
        assert min(after) < 3 * before + 0.004


async def median_seconds(client: httpx.AsyncClient) -> float:
    """Return how long a request of the second key takes."""
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        assert (await client.get("/models", headers={"x-api-key": TWO})).status_code == 200
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# Pages of other origins


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
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin["origin"])
    refused = await client.get("/models", headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["origin"])
    other = await client.get("/models", headers={"origin": "https://c.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"origin": "https://service:8000"}, True),
        ({"origin": "https://service"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://public.example", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://service:8000", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_what_another_sites_page_sends_is_refused(headers: dict[str, str], allowed: bool) -> None:
    """Browsers tell by Sec-Fetch-Site, also behind a proxy that changes Host; older ones by Origin."""
    lines = {"host": "service:8000"} | headers
    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in lines.items()]}
    if allowed:
        refuse_cross_site(scope)
    else:
        with pytest.raises(Forbidden):
            refuse_cross_site(scope)
