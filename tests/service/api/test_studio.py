"""The studio's files: served without a key, small, from this host alone, and found behind a proxy."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urljoin

import httpx
import pytest

from service.api.pages import STUDIO

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]
KEY = "a-key-that-is-long-enough"
MAX_BYTES = 150_000


def links(page: str) -> list[str]:
    """Return what the page loads when it is opened."""
    return re.findall(r'(?:src|href)="(studio/[^"]*)"', page)


async def test_the_root_is_the_studio(connect: Connect) -> None:
    """The page and all its files need no key and have their types; every module is loaded with the page."""
    client = connect(api_keys=KEY)
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found = set(links(page.text))
    types = {link: (await client.get(f"/{link}")).headers["content-type"].partition(";")[0] for link in found}
    assert set(types.values()) == {"text/javascript", "text/css", "image/svg+xml"}
    assert {f"studio/{file.name}" for file in STUDIO.glob("*.js")} <= found


async def test_it_is_small(connect: Connect) -> None:
    """All files together have at most 150 kB."""
    page = await connect().get("/")
    sizes = [len((await connect().get(f"/{link}")).content) for link in set(links(page.text))]
    assert sum(sizes) + len(page.content) <= MAX_BYTES


async def test_it_asks_this_host_alone(connect: Connect) -> None:
    """The policy allows scripts of files alone, and names no host."""
    response = await connect().get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "//" not in policy
    assert "unsafe" not in policy
    texts = [response.text, *(file.read_text() for file in STUDIO.glob("*.js"))]
    assert not [found for text in texts for found in re.findall(r"https?://(?!www\.w3\.org)[^\s\"'`$]+", text)]


async def test_a_file_is_sent_once(connect: Connect) -> None:
    """With its ETag a file is 304, and the cache asks again each time."""
    client = connect()
    first = await client.get("/studio/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get("/studio/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["missing.js", "tsconfig.json", "..%2Fapp.py", "%2e%2e%2fapp.py"])
async def test_there_is_nothing_else(connect: Connect, name: str) -> None:
    """A name that is none of the files is 404."""
    response = await connect().get(f"/studio/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("prefix", ["/cogan", "/cogan/", "/a/b.c/d-e"])
async def test_a_named_prefix_is_the_base(connect: Connect, prefix: str) -> None:
    """Every link of the page leads below the prefix that a proxy names, with and without a slash."""
    page = (await connect().get("/", headers={"x-forwarded-prefix": prefix})).text
    (base,) = re.findall(r'<base href="([^"]*)">', page)
    wanted = f"https://public.example{prefix.rstrip('/')}"
    for opened in (wanted, f"{wanted}/"):
        assert urljoin(urljoin(opened, base), "studio/app.js") == f"{wanted}/studio/app.js"


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\\evil.example",
        "/cogan//evil.example",
        "/cogan?x=",
        "/@evil.example:80",
        '/"><script>',
        "/a b",
        "/..",
        "/a/../evil",
        "/./a",
    ],
)
async def test_hostile_prefixes_are_ignored(connect: Connect, prefix: str) -> None:
    """What is no plain path is not sent back."""
    page = (await connect().get("/", headers={"x-forwarded-prefix": prefix})).text
    assert "<base" not in page
    assert "evil" not in page
