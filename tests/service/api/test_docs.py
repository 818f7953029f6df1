"""The OpenAPI document is true, its page asks no other host, and every address is right behind a proxy."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.anyio
Connect = Callable[..., httpx.AsyncClient]
KEY = "a-key-that-is-long-enough"


def links(page: str) -> list[str]:
    """Return what a page loads when it is opened."""
    return re.findall(r'(?:src|href)="([^"]*)"', page)


async def test_the_page_has_all_its_files_here(connect: Connect) -> None:
    """Script, style and icon are at paths below the page, of the right types, and need no key."""
    client = connect(api_keys=KEY)
    found = {link: await client.get(f"/{link}") for link in links((await client.get("/docs")).text)}
    assert {link: response.headers["content-type"].partition(";")[0] for link, response in found.items()} == {
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/swagger-ui.css": "text/css",
        "docs/favicon-32x32.png": "image/png",
    }
    assert all(
        response.status_code == 200 and "max-age" in response.headers["cache-control"] for response in found.values()
    )


async def test_the_document_can_only_be_read(client: httpx.AsyncClient) -> None:
    """Another method is 405, and the document is counted by its route, like all others."""
    refused = await client.post("/openapi.json")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "CoGAN"
    assert 'code="200",method="GET",route="/openapi.json"' in (await client.get("/metrics")).text


async def test_the_page_may_send_requests_to_this_host_alone(client: httpx.AsyncClient) -> None:
    """The page's policy names no host, and its script is allowed by its hash."""
    response = await client.get("/docs")
    policy = response.headers["content-security-policy"]
    assert "//" not in policy.replace("blob:", "").replace("data:", "")
    (script,) = re.findall("<script>(.*?)</script>", response.text, re.DOTALL)
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "https://" not in response.text
    assert '"validatorUrl": null' in response.text


async def read_document(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def example_query(operation: dict[str, Any]) -> dict[str, Any]:
    """Collect the examples of an operation's parameters."""
    parameters = operation.get("parameters", [])
    return {p["name"]: p["schema"]["examples"][0] for p in parameters if "examples" in p["schema"]}


def body_schema(operations: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a path's JSON body; an empty one if it has none."""
    content = operations.get("post", {}).get("requestBody", {}).get("content", {})
    return dict(content.get("application/json", {}).get("schema", {}))


async def test_examples_of_bodies_run(client: httpx.AsyncClient) -> None:
    """Every example of a body is answered with 200 and a type that the document lists."""
    document = await read_document(client)
    ran = 0
    for path, operations in document["paths"].items():
        for body in body_schema(operations).get("examples", []):
            response = await client.post(path, json=body)
            assert response.status_code == 200
            assert response.headers["content-type"] in operations["post"]["responses"]["200"]["content"]
            ran += 1
    assert ran >= 4


async def test_examples_of_queries_run(client: httpx.AsyncClient) -> None:
    """Every GET without a name in its path answers its examples with 200."""
    document = await read_document(client)
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path:
            query = example_query(operations["get"])
            assert (await client.get(path, params=query)).status_code == 200
    assert example_query(document["paths"]["/interpolate"]["get"]).keys() >= {"from", "to"}


async def test_errors_are_described_as_they_are(client: httpx.AsyncClient) -> None:
    """Every error response in the document is a problem+json of the one schema."""
    document = await read_document(client)
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_unknown_fields_are_described_as_refused(client: httpx.AsyncClient) -> None:
    """The document says of every request that it takes no other fields."""
    paths = (await read_document(client))["paths"]
    keyframe = body_schema(paths["/interpolate"])["properties"]["keyframes"]["items"]
    for schema in (body_schema(paths["/generate"]), body_schema(paths["/interpolate"]), keyframe):
        assert schema["additionalProperties"] is False


async def test_the_document_needs_nothing_that_it_lacks(client: httpx.AsyncClient) -> None:
    """Every reference leads to a schema, and every parameter and body that a route reads is described."""
    response = await client.get("/openapi.json")
    schemas = response.json()["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/([^\"]+)", response.text)) <= schemas.keys()
    assert "$defs" not in response.text
    queries = {
        path: {one["name"] for one in response.json()["paths"][path]["get"]["parameters"] if one["in"] == "query"}
        for path in ("/generate", "/interpolate")
    }
    images, filters = (
        {"model", "domains", "truncation", "directions", "format", "scale", "labels"},
        {"class", "min_confidence", "agree"},
    )
    assert queries["/generate"] == images | {"seed", "seeds", "index", "count"} | filters
    assert queries["/interpolate"] == images | {"from", "to", "steps", "method", "loop"}


class Proxy:
    """A reverse proxy that serves an app below a prefix, which it strips, under a Host of its own choice."""

    def __init__(self, app: ASGIApp, prefix: str, headers: dict[bytes, bytes]) -> None:
        self._app, self._prefix, self._headers = app, prefix, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is below the prefix; the rest is 404, as another application would have it."""
        path = scope["path"]
        if not path.startswith(f"{self._prefix}/"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"another application"})
            return
        kept = [header for header in scope["headers"] if header[0] not in {b"host", *self._headers}]
        inner = dict(scope, path=path.removeprefix(self._prefix), headers=kept + list(self._headers.items()))
        await self._app(inner | {"raw_path": inner["path"].encode()}, receive, send)


Behind = Callable[..., httpx.AsyncClient]


@pytest.fixture
def behind(tiny_model: Callable[..., Path], models_dir: Path) -> Behind:
    """Return what opens a client of an app behind a proxy with the given prefix and headers."""
    tiny_model()

    def connect(prefix: str = "/cogan", headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        app = create_app(Settings(models_dir=models_dir, threads=1, processes=1))
        added = {b"host": b"10.0.0.7:8000"} | {k.encode(): v.encode() for k, v in (headers or {}).items()}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(Proxy(app, prefix, added)), base_url=f"https://public.example{prefix}/"
        )

    return connect


@pytest.mark.parametrize("prefix", ["", "/cogan", "/a/b.c/d-e"])
async def test_the_documents_server_is_right_behind_a_prefix(behind: Behind, prefix: str) -> None:
    """Resolved against the document's URL, as OpenAPI has it, the server leads to every route."""
    client = behind(prefix)
    document = await client.get("openapi.json")
    (server,) = document.json()["servers"]
    base = urljoin(str(document.url), server["url"]).removesuffix("/")
    assert base == f"https://public.example{prefix}"
    for path, query in (("/generate", {"seed": 1}), ("/models", {}), ("/v2/models/tiny", {}), ("/livez", {})):
        assert path in document.json()["paths"] or path == "/v2/models/tiny"
        assert (await client.get(base + path, params=query)).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/cogan", "/a/b.c/d-e"])
async def test_the_page_loads_behind_a_prefix(behind: Behind, prefix: str) -> None:
    """Script, style, icon and document are found from the page's URL."""
    client = behind(prefix)
    page = await client.get("docs")
    (document,) = re.findall(r"url: '([^']*)'", page.text)
    loaded = [*links(page.text), document]
    assert len(loaded) == 4
    for link in loaded:
        url = urljoin(str(page.url), link)
        assert (urlsplit(url).netloc, (await client.get(url)).status_code) == ("public.example", 200)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_random_response_is_found_again_behind_a_prefix(behind: Behind, method: str) -> None:
    """Content-Location, resolved against the request's URL, has the same bytes."""
    client = behind()
    body: dict[str, Any] = {"json": {"count": 2}} if method == "POST" else {}
    response = await client.request(method, "generate", **body)
    again = urljoin(str(response.url), response.headers["content-location"])
    assert again.startswith("https://public.example/cogan/generate?")
    assert (await client.get(again)).content == response.content


async def test_an_unknown_path_names_no_other_without_its_prefix(behind: Behind) -> None:
    """The problem mentions the page, whose path below a prefix the service does not know."""
    response = await behind().get("nothing")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_path")
    assert "page docs" in response.json()["detail"]
    assert "/docs" not in response.json()["detail"]
