"""/generate and /interpolate: coupled images of seeds or latents, and along a path through them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response

from service.api import docs
from service.api.options import choose_format, deadline, read_json, read_query
from service.api.schemas import (
    GenerateQuery,
    GenerateRequest,
    GenerateResponse,
    InterpolateQuery,
    InterpolateRequest,
    InterpolateResponse,
    limited,
)
from service.errors import FieldError, TooLarge
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from service.generation.generator import Generator, formats
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.http.middleware import OUTSIDE_PATH, header
from service.http.response_cache import ResponseCache, matches
from service.latents import MAX_SEED, default_method
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import trace_stages


class ImageRoutes:
    """/generate and /interpolate: equal requests have responses of equal bytes, by GET and by POST.

    A GET that is always the same has a strong ETag, and 304 costs no inference.
    """

    def __init__(self, generator: Generator, cached: ResponseCache, metrics: Metrics, settings: Settings) -> None:
        self._generator, self._cached, self._metrics, self._settings = generator, cached, metrics, settings
        self._pair_limits = dict.fromkeys(("count", "seeds", "latents"), settings.max_pairs)
        self._pair_query = limited(GenerateQuery, **self._pair_limits)
        self._pair_body = limited(GenerateRequest, **self._pair_limits)
        self._frame_limits = dict.fromkeys(("steps", "keyframes"), settings.max_frames)
        self._frame_query = limited(InterpolateQuery, **self._frame_limits)
        self._frame_body = limited(InterpolateRequest, **self._frame_limits)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app: for each path GET with a query, and POST with a body."""
        pairs = docs.image_responses(GenerateResponse, PAIR_FORMATS)
        frames = docs.image_responses(InterpolateResponse, FRAME_FORMATS)
        for path, responses, by_query, query, by_body, body in (
            ("/generate", pairs, self.generate_by_query, self._pair_query, self.generate, self._pair_body),
            ("/interpolate", frames, self.interpolate_by_query, self._frame_query, self.interpolate, self._frame_body),
        ):
            docs.add_image_route(app, "GET", path, by_query, responses | docs.NOT_MODIFIED, query)
            docs.add_image_route(app, "POST", path, by_body, responses | docs.BODY_RESPONSES, **docs.json_body(body))

    async def generate_by_query(self, request: Request) -> Response:
        """Generate the coupled images of seeds. With a seed the response has an ETag; without, it is random."""
        return await self._send_pairs(request, read_query(request, self._pair_query, self._pair_limits), "query")

    async def generate(self, request: Request) -> Response:
        """Generate the coupled images of seeds or latents; without either, a random seed is used and returned."""
        return await self._send_pairs(request, await read_json(request, self._pair_body, self._pair_limits), "body")

    async def interpolate_by_query(self, request: Request) -> Response:
        """Generate the coupled images on the path from one seed to another. The response has an ETag."""
        return await self._send_frames(request, read_query(request, self._frame_query, self._frame_limits), "query")

    async def interpolate(self, request: Request) -> Response:
        """Generate the coupled images on the path through key frames, each a seed or a latent."""
        return await self._send_frames(request, await read_json(request, self._frame_body, self._frame_limits), "body")

    async def _send_pairs(self, request: Request, wanted: GenerateQuery | GenerateRequest, place: str) -> Response:
        format_ = choose_format(wanted.format, header(request, "accept"), PAIR_FORMATS, wanted.labels)
        spec, random = self.spec(wanted, format_, place)
        return await self._send(request, spec, place, _url(spec, wanted, request) if random else None)

    def spec(self, wanted: GenerateQuery | GenerateRequest, format_: str, place: str) -> tuple[GenerationSpec, bool]:
        """Return the spec of a request, and True if its seed is random. Raises TooLarge, and as Generator.spec does."""
        filters = wanted.filters
        given = wanted.latents if isinstance(wanted, GenerateRequest) else None
        seeds = wanted.seeds if wanted.seed is None else [wanted.seed]
        random = given is None and seeds is None
        if given is not None:
            latents = [LatentSpec(i, values=tuple(values)) for i, values in enumerate(given)]
        else:
            seeds = seeds or [secrets.randbelow(MAX_SEED + 1)]
            if len(seeds) * wanted.count > (limit := self._settings.max_pairs):
                allowed = f"at most {limit // len(seeds)} for each of {len(seeds)} seeds"
                wrong = FieldError("/count", wanted.count, allowed, place)
                raise TooLarge(f"one response has at most {limit} pairs; send several requests", [wrong])
            count = 1 if filters else wanted.count  # with filters, the first candidate of every seed
            latents = [LatentSpec(wanted.index + i, seed) for seed in seeds for i in range(count)]
        spec = self._generator.spec(
            self._generator.model(wanted.model, place),
            domains=wanted.domains,
            latents=latents,
            place=place,
            format_=format_,
            truncation=wanted.truncation,
            labels=wanted.labels,
            filters=filters,
            count=wanted.count if filters else 1,
            directions=wanted.directions,
            scale=wanted.scale,
        )
        return spec, random

    async def _send_frames(
        self, request: Request, wanted: InterpolateQuery | InterpolateRequest, place: str
    ) -> Response:
        model = self._generator.model(wanted.model, place)
        path = InterpolationPath(wanted.steps, wanted.method or default_method(model.prior), wanted.loop)
        if path.frames(len(wanted.keyframes)) > (limit := self._settings.max_frames):
            wrong = FieldError("/steps", path.steps, f"at most {limit} frames in one response", place)
            raise TooLarge(f"one response has at most {limit} frames; request fewer steps", [wrong])
        spec = self._generator.spec(
            model,
            domains=wanted.domains,
            latents=[
                LatentSpec(one.index, one.seed) if one.latent is None else LatentSpec(i, values=tuple(one.latent))
                for i, one in enumerate(wanted.keyframes)
            ],
            place=place,
            format_=choose_format(wanted.format, header(request, "accept"), FRAME_FORMATS, wanted.labels),
            truncation=wanted.truncation,
            path=path,
            labels=wanted.labels,
            directions=wanted.directions,
            scale=wanted.scale,
        )
        return await self._send(request, spec, place)

    async def _send(
        self, request: Request, spec: GenerationSpec, place: str, random_url: str | None = None
    ) -> Response:
        """Return the response to a spec.

        `random_url` is where it is found again if the service chose the seed; such a response is not cached.
        """
        until, headers, etag = deadline(request, self._settings.deadline_s), {"Vary": "Accept"}, None
        if random_url is not None:
            headers |= {"Cache-Control": "no-store", "Content-Location": random_url}
        elif request.method == "GET":
            etag = spec.key
            headers |= {"Cache-Control": "no-cache", "ETag": f'"{etag}"'}
            if matches(header(request, "if-none-match") or "", etag):
                headers["Server-Timing"] = server_timing({"cache": 0.0})
                unchanged = Response(status_code=304, headers=headers)
                self._cached.store(request.scope, unchanged, etag)
                return unchanged
        self._metrics.cache_misses.inc()
        body, seconds = await self._generator.generate(spec, until, place)
        response = image_response(spec, body, headers, seconds)
        if random_url is None:
            self._cached.store(request.scope, response, etag)
        return response


def _url(spec: GenerationSpec, wanted: GenerateQuery | GenerateRequest, request: Request) -> str:
    """Return where the response to a random seed is found again, relative to this one: a proxy may add a prefix."""
    up = "../" * (request.scope.get(OUTSIDE_PATH, "/generate").count("/") - 1)
    chosen = {"model": spec.model.name, "seed": spec.latents[0].seed, "domains": spec.domains, "format": spec.format}
    query = wanted.model_dump(by_alias=True, exclude_defaults=True, exclude={"latents", "directions"}) | chosen
    if spec.directions:
        query["directions"] = ",".join(f"{number + 1}:{value}" for number, value in spec.directions)
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return f"{up}generate?" + urlencode(words, doseq=True)


def image_response(
    spec: GenerationSpec, body: bytes, headers: dict[str, str], seconds: Mapping[str, float]
) -> Response:
    """Return encoded images, with these headers and those of every format; trace the seconds of each stage."""
    trace_stages(seconds)
    headers["Server-Timing"] = server_timing(seconds)
    if spec.format in ("zip", "npz"):
        headers["Content-Disposition"] = f'attachment; filename="{spec.model.name}.{spec.format}"'
    return Response(body, headers=headers, media_type=formats(spec)[spec.format].media_type)


def server_timing(seconds: Mapping[str, float]) -> str:
    """Return the header Server-Timing: the milliseconds of each stage."""
    return ", ".join([f"{stage};dur={s * 1e3:.3f}" for stage, s in seconds.items()])
