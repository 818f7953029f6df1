"""/interpolate: coupled images along a path through latents."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from service.api.docs import image_responses
from service.api.generate import ImageResponses, add_image_routes
from service.api.options import choose_format, read_json, read_query
from service.api.schemas import InterpolateQuery, InterpolateRequest, InterpolateResponse, Keyframe, limited
from service.errors import FieldError, TooLarge
from service.generation.encoding import FRAME_FORMATS
from service.generation.generator import Generator
from service.generation.spec import InterpolationPath, LatentSpec
from service.http.middleware import header
from service.latents import default_method


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
        add_image_routes(app, "/interpolate", by_query, by_body, image_responses(InterpolateResponse, FRAME_FORMATS))

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
            truncation=wanted.truncation,
            path=path,
            format_=choose_format(wanted.format, header(request, "accept"), FRAME_FORMATS),
            place=place,
            labels=wanted.labels,
            directions=wanted.directions,
        )
        return await self._responses.respond(request, spec)
