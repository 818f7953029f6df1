"""/docs: the OpenAPI document as a page of Swagger UI, whose files are here, so that it asks no other."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, JSONResponse, RedirectResponse

FOLDER = Path(str(files("fastapi_swagger.resources")))
SCRIPT, STYLE, ICON = FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
DAY_S = 86_400


def add_docs(app: FastAPI) -> None:
    """Add the document, its page and the page's files to an app.

    The page names them relative to itself, as a proxy may move them.
    """
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

    async def show_document() -> Response:
        return JSONResponse(app.openapi())

    async def go_to_docs() -> Response:
        return RedirectResponse("docs")

    async def send_docs_file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return FileResponse(FOLDER / name, headers={"Cache-Control": f"max-age={DAY_S}"})

    app.get("/", include_in_schema=False)(go_to_docs)
    app.get("/openapi.json", include_in_schema=False)(show_document)
    app.get("/docs", include_in_schema=False)(show_docs)
    for name in FILES:
        app.get(f"/docs/{name}", include_in_schema=False)(send_docs_file)


def _policy(page: str) -> str:
    """Allow the page its files, the script in it, and to ask this service and show what it answers."""
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return (
        f"default-src 'none'; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
