"""The reference is a page that asks no host but this one."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256

import httpx
import pytest

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]


def links(page: str) -> list[str]:
    """Return what a page loads when it is opened."""
    return re.findall(r'(?:src|href)="([^"]*)"', page)


async def test_the_address_alone_leads_to_the_page(connect: Connect) -> None:
    """Who opens what the log names is shown what there is, without a key, and below a proxy's path."""
    answer = await connect(api_keys="a-key-that-is-long-enough").get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


async def test_the_page_has_all_its_files_here(connect: Connect) -> None:
    """Script, style and icon are at paths below the page, of the right types, and need no key."""
    client = connect(api_keys="a-key-that-is-long-enough")
    found = {link: await client.get(f"/{link}") for link in links((await client.get("/docs")).text)}
    assert {link: answer.headers["content-type"].partition(";")[0] for link, answer in found.items()} == {
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/swagger-ui.css": "text/css",
        "docs/favicon-32x32.png": "image/png",
    }
    assert all(
        answer.status_code == 200 and "max-age" in answer.headers["cache-control"]
        for answer in found.values()
    )


async def test_the_document_can_only_be_read(client: httpx.AsyncClient) -> None:
    """Another method is told so, and it is counted by its route, as all else."""
    refused = await client.post("/openapi.json")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "CoGAN"
    assert 'code="200",method="GET",route="/openapi.json"' in (await client.get("/metrics")).text


async def test_the_page_may_ask_this_host_alone(client: httpx.AsyncClient) -> None:
    """Its policy names no host, and the script in the page is allowed by its hash."""
    answer = await client.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert "//" not in policy.replace("blob:", "").replace("data:", "")
    (script,) = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "https://" not in answer.text
    assert '"validatorUrl": null' in answer.text
