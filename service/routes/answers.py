"""What an answer with images says in its headers: validator, caching, timing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from service.generator import Generator, formats
from service.orders import Order


async def answer_order(
    request: Request, generator: Generator, order: Order, deadline_s: float, drawn_seed_url: str | None = None
) -> Response:
    """Answer an order; a GET that can be repeated has a strong ETag, and 304 costs no inference.

    `drawn_seed_url` is where the same answer is found again if the service drew the seed itself.
    """
    headers = {"Vary": "Accept"}
    if drawn_seed_url is not None:
        headers |= {"Cache-Control": "no-store", "Content-Location": drawn_seed_url}
    elif request.method == "GET":
        etag = f'"{order.key}"'
        headers |= {"ETag": etag, "Cache-Control": "no-cache"}
        if _matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
    answer = await generator.answer(order, asyncio.get_running_loop().time() + deadline_s)
    headers["Server-Timing"] = server_timing(answer.seconds)
    if order.format in ("zip", "npz"):
        headers["Content-Disposition"] = f'attachment; filename="{order.model.name}.{order.format}"'
    media_type = formats(order.walk is not None)[order.format].media_type
    return Response(answer.body, headers=headers, media_type=media_type)


def server_timing(seconds: Mapping[str, float]) -> str:
    """Render the header Server-Timing: what each part of the work took, in milliseconds."""
    return ", ".join([f"{part};dur={s * 1e3:.3f}" for part, s in seconds.items()])


def _matches(if_none_match: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags
