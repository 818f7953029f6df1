"""/generate and /interpolate: coupled images of seeds or latents, and along a path through them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any
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
    Keyframe,
    limited,
)
from service.errors import FieldError, TooLarge
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from service.generation.generator import Generator, formats
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.http.middleware import header
from service.http.response_cache import ResponseCache, matches
from service.latents import MAX_SEED, default_method
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import trace_stages


class ImageResponses:
    """Responses with images; a GET that is always the same has a strong ETag, and 304 costs no inference."""

    def __init__(self, generator: Generator, cached: ResponseCache, metrics: Metrics, deadline_s: float) -> None:
        self._generator, self._cached, self._deadline_s = generator, cached, deadline_s
        self._metrics = metrics

    async def respond(self, request: Request, spec: GenerationSpec, random_url: str | None = None) -> Response:
        """Return the response to a spec.

        `random_url` is where it is found again if the service chose the seed; such a response is not cached.
        """
        until, headers, etag = deadline(request, self._deadline_s), {"Vary": "Accept"}, None
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
        body, seconds = await self._generator.generate(spec, until, "query" if request.method == "GET" else "body")
        response = image_response(spec, body, headers, seconds)
        if random_url is None:
            self._cached.store(request.scope, response, etag)
        return response


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


def _add_routes(
    app: FastAPI,
    path: str,
    by_query: tuple[Callable[..., Any], type[Any]],
    by_body: tuple[Callable[..., Any], type[Any]],
    described: docs.Responses,
) -> None:
    """Add both routes of a path to an app: GET with a query, POST with a body, each with its request type."""
    docs.add_image_route(app, "GET", path, by_query[0], described | docs.NOT_MODIFIED, by_query[1])
    docs.add_image_route(app, "POST", path, by_body[0], described | docs.BODY_RESPONSES, **docs.json_body(by_body[1]))


class GenerateRoutes:
    """Equal requests have responses of equal bytes, by GET and by POST; without a seed, a random one is used."""

    def __init__(self, generator: Generator, responses: ImageResponses, max_pairs: int) -> None:
        self._generator, self._responses = generator, responses
        self._limits = dict.fromkeys(("count", "seeds", "latents"), max_pairs)
        self._query_type = limited(GenerateQuery, **self._limits)
        self._body_type = limited(GenerateRequest, **self._limits)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        by_query, by_body = (self.generate_by_query, self._query_type), (self.generate, self._body_type)
        _add_routes(app, "/generate", by_query, by_body, docs.image_responses(GenerateResponse, PAIR_FORMATS))

    async def generate_by_query(self, request: Request) -> Response:
        """Generate the coupled images of seeds. With a seed the response has an ETag; without, it is random."""
        return await self._respond(request, read_query(request, self._query_type, self._limits), "query")

    async def generate(self, request: Request) -> Response:
        """Generate the coupled images of seeds or latents; without either, a random seed is used and returned."""
        return await self._respond(request, await read_json(request, self._body_type, self._limits), "body")

    async def _respond(self, request: Request, wanted: GenerateQuery | GenerateRequest, place: str) -> Response:
        format_ = choose_format(wanted.format, header(request, "accept"), PAIR_FORMATS)
        spec, random = self.spec(wanted, format_, place)
        return await self._responses.respond(request, spec, _url(spec, wanted) if random else None)

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
            if len(seeds) * wanted.count > (limit := self._limits["count"]):
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
        )
        return spec, random


def _url(spec: GenerationSpec, wanted: GenerateQuery | GenerateRequest) -> str:
    """Return where the response to a random seed is found again, relative to this one: a proxy may add a prefix."""
    chosen = {"model": spec.model.name, "seed": spec.latents[0].seed, "domains": spec.domains, "format": spec.format}
    query = wanted.model_dump(by_alias=True, exclude_defaults=True, exclude={"latents"}) | chosen
    if spec.directions:
        query["directions"] = ",".join(f"{number + 1}:{value}" for number, value in spec.directions)
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return "generate?" + urlencode(words, doseq=True)


class InterpolateRoutes:
    """Equal requests have responses of equal bytes, by GET and by POST."""

    def __init__(self, generator: Generator, responses: ImageResponses, max_frames: int) -> None:
        self._generator, self._responses = generator, responses
        self._limits = dict.fromkeys(("steps", "keyframes"), max_frames)
        self._query_type = limited(InterpolateQuery, **self._limits)
        self._body_type = limited(InterpolateRequest, **self._limits)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        by_query, by_body = (self.interpolate_by_query, self._query_type), (self.interpolate, self._body_type)
        _add_routes(app, "/interpolate", by_query, by_body, docs.image_responses(InterpolateResponse, FRAME_FORMATS))

    async def interpolate_by_query(self, request: Request) -> Response:
        """Generate the coupled images on the path from one seed to another. The response has an ETag."""
        query = read_query(request, self._query_type, self._limits)
        return await self._respond(request, query, [Keyframe(seed=query.start), Keyframe(seed=query.end)], "query")

    async def interpolate(self, request: Request) -> Response:
        """Generate the coupled images on the path through key frames, each a seed or a latent."""
        body = await read_json(request, self._body_type, self._limits)
        return await self._respond(request, body, body.keyframes, "body")

    async def _respond(
        self, request: Request, wanted: InterpolateQuery | InterpolateRequest, keyframes: list[Keyframe], place: str
    ) -> Response:
        model = self._generator.model(wanted.model, place)
        path = InterpolationPath(wanted.steps, wanted.method or default_method(model.prior), wanted.loop)
        if path.frames(len(keyframes)) > (limit := self._limits["steps"]):
            wrong = FieldError("/steps", path.steps, f"at most {limit} frames in one response", place)
            raise TooLarge(f"one response has at most {limit} frames; request fewer steps", [wrong])
        spec = self._generator.spec(
            model,
            domains=wanted.domains,
            latents=[
                LatentSpec(one.index, one.seed) if one.latent is None else LatentSpec(i, values=tuple(one.latent))
                for i, one in enumerate(keyframes)
            ],
            place=place,
            format_=choose_format(wanted.format, header(request, "accept"), FRAME_FORMATS),
            truncation=wanted.truncation,
            path=path,
            labels=wanted.labels,
            directions=wanted.directions,
        )
        return await self._responses.respond(request, spec)
