"""What an answer with images says in its headers: validator, caching, timing."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from service.generation.generator import FROM_CACHE, Generator, formats
from service.generation.orders import Order
from service.http.repeats import Repeats, matches
from service.routes.patience import deadline
from service.telemetry.tracing import trace_parts


class ImageAnswers:
    """Answers orders; a GET that can be repeated has a strong ETag, and 304 costs no inference."""

    def __init__(self, generator: Generator, repeats: Repeats, deadline_s: float) -> None:
        self._generator, self._repeats, self._deadline_s = generator, repeats, deadline_s

    async def answer(self, request: Request, order: Order, drawn_seed_url: str | None = None) -> Response:
        """Answer an order.

        `drawn_seed_url` is where the same answer is found again if the service drew the seed itself.
        """
        until, headers = deadline(request, self._deadline_s), {"Vary": "Accept"}
        if drawn_seed_url is not None:
            headers |= {"Cache-Control": "no-store", "Content-Location": drawn_seed_url}
        elif request.method == "GET":
            headers |= {"Cache-Control": "no-cache", "ETag": f'"{order.key}"'}
            if matches(request.headers.get("if-none-match", ""), order.key):
                self._remember(request, order, headers)
                return _unchanged(headers)
        answer = await self._generator.answer(order, until)
        trace_parts(answer.seconds)
        if answer.kept and drawn_seed_url is None:
            self._remember(request, order, headers)
        return _response(order, answer.body, headers, answer.seconds)

    def _remember(self, request: Request, order: Order, headers: dict[str, str]) -> None:
        """Know a question the next time, as its answer was asked for before; most are asked once."""
        again = _response(order, b"", headers, FROM_CACHE).raw_headers
        unchanged = _unchanged(headers).raw_headers if "ETag" in headers else []
        self._repeats.remember(request.scope, order.key, again, unchanged)


def _unchanged(headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers=headers | {"Server-Timing": server_timing(FROM_CACHE)})


def _response(order: Order, body: bytes, headers: dict[str, str], seconds: Mapping[str, float]) -> Response:
    headers = headers | {"Server-Timing": server_timing(seconds)}
    if order.format in ("zip", "npz"):
        headers["Content-Disposition"] = f'attachment; filename="{order.model.name}.{order.format}"'
    media_type = formats(order.walk is not None)[order.format].media_type
    return Response(body, headers=headers, media_type=media_type)


def server_timing(seconds: Mapping[str, float]) -> str:
    """Render the header Server-Timing: what each part of the work took, in milliseconds."""
    return ", ".join([f"{part};dur={s * 1e3:.3f}" for part, s in seconds.items()])
