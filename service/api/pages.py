"""Pages for browsers, with their files and policies: the studio at /, and Swagger UI at /docs."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, JSONResponse

from service.errors import UnknownPath
from service.http.middleware import header
from service.http.response_cache import matches

STUDIO = Path(__file__).parents[1] / "studio"
SWAGGER = Path(str(files("fastapi_swagger.resources")))
SWAGGER_FILES = SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
DAY_S = 86_400
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")  # of X-Forwarded-Prefix
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'"
)


def add_studio(app: FastAPI) -> None:
    """Add the page and its files, named relative to it: a proxy may add a prefix."""
    contents = {path.name: path.read_bytes() for path in STUDIO.iterdir() if path.suffix in MEDIA_TYPES}

    async def show_studio(request: Request) -> Response:
        page = contents["index.html"].replace(b"<base>", _base(request).encode())
        return _file(request, "index.html", page)

    async def send_studio_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in contents:
            raise UnknownPath(f"the studio has no file {name!r:.80}")
        return _file(request, name, contents[name])

    app.get("/", include_in_schema=False)(show_studio)
    app.get("/studio/{name}", include_in_schema=False)(send_studio_file)


def _base(request: Request) -> str:
    """Return the element that names the prefix which a proxy has removed from the path; empty if it does not say."""
    given = request.headers.get("x-forwarded-prefix", "").rstrip("/")
    return f'<base href="{given}/">' if PREFIX.fullmatch(given) else ""


def _file(request: Request, name: str, content: bytes) -> Response:
    """Return a file, which a browser checks each time it opens the page, so that a new release shows at once.

    Except the icon, which Chromium asks for whenever the page's URL changes.
    """
    etag = sha256(content).hexdigest()[:32]
    cached = f"max-age={DAY_S}" if name.endswith(".svg") else "no-cache"
    headers = {"Cache-Control": cached, "ETag": f'"{etag}"', "Content-Security-Policy": POLICY}
    if matches(header(request, "if-none-match") or "", etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


def add_docs(app: FastAPI) -> None:
    """Add the OpenAPI document, its page and the page's files, named relative to it: a proxy may add a prefix."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title}: reference",
        swagger_js_url=f"docs/{SCRIPT}",
        swagger_css_url=f"docs/{STYLE}",
        swagger_favicon_url=f"docs/{ICON}",
        swagger_ui_parameters={"validatorUrl": None},  # which would be sent the document
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())

    async def show_docs() -> Response:
        return page

    def show_document() -> Response:  # in a thread: to write it takes a while
        return JSONResponse(app.openapi())

    async def send_file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return FileResponse(SWAGGER / name, headers={"Cache-Control": f"max-age={DAY_S}"})

    app.get("/openapi.json", include_in_schema=False)(show_document)
    app.get("/docs", include_in_schema=False)(show_docs)
    for name in SWAGGER_FILES:
        app.get(f"/docs/{name}", include_in_schema=False)(send_file)


def _policy(page: str) -> str:
    """Return a policy that allows the page its files, its script, and requests to this service."""
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return (
        f"default-src 'none'; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
