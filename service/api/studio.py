"""The studio at /: a page to look at coupled images, its modules and styles, and its policy."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Request, Response

from service.errors import UnknownPath
from service.http.response_cache import matches

FOLDER = Path(__file__).parents[1] / "studio"
DAY_S = 86_400
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")  # of X-Forwarded-Prefix
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'"
)


def add_studio(app: FastAPI) -> None:
    """Add the page and its files, named relative to it: a proxy may add a prefix."""
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES}
    contents = {name: path.read_bytes() for name, path in files.items()}

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
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)
