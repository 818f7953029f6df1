"""/interpolate: coupled images on a way through latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Body, FastAPI, Query, Request, Response

from service.errors import FieldError, TooLarge
from service.generation.encoding import FRAME_FORMATS
from service.generation.generator import Generator
from service.generation.orders import Source, Walk
from service.latents import default_method
from service.routes.answers import ImageAnswers
from service.routes.image_routes import add_image_routes
from service.routes.negotiation import choose_format
from service.routes.openapi import image_responses
from service.routes.queries import refuse_repeats
from service.wire.answer_schemas import InterpolateAnswer
from service.wire.schemas import InterpolateQuery, InterpolateRequest, Keyframe


class InterpolateRoutes:
    """Equal requests have equal bytes for an answer, by GET and by POST."""

    def __init__(self, generator: Generator, answers: ImageAnswers, max_frames: int) -> None:
        self._generator, self._answers, self._max_frames = generator, answers, max_frames

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        responses = image_responses(InterpolateAnswer, FRAME_FORMATS)
        add_image_routes(app, "/interpolate", self.interpolate_by_query, self.interpolate, responses)

    async def interpolate_by_query(
        self, request: Request, query: Annotated[InterpolateQuery, Query()]
    ) -> Response:
        """Draw the coupled images on the way from one seed to another. The answer has an ETag."""
        refuse_repeats(request, "domains")
        ends = [Keyframe(seed=query.start), Keyframe(seed=query.end)]
        return await self._answer(request, query, ends, "query")

    async def interpolate(self, request: Request, body: Annotated[InterpolateRequest, Body()]) -> Response:
        """Draw the coupled images on the way through key frames, each a seed or a latent."""
        return await self._answer(request, body, body.keyframes, "body")

    async def _answer(
        self,
        request: Request,
        choice: InterpolateQuery | InterpolateRequest,
        keyframes: Sequence[Keyframe],
        place: str,
    ) -> Response:
        model = self._generator.model(choice.model, place)
        walk = Walk(choice.steps, choice.method or default_method(model.metadata.prior), choice.loop)
        self._check_size(walk, len(keyframes), place)
        order = self._generator.order(
            choice,
            sources=[_source(i, keyframe) for i, keyframe in enumerate(keyframes)],
            walk=walk,
            format_=choose_format(choice.format, request.headers.get("accept"), FRAME_FORMATS),
            place=place,
        )
        return await self._answers.answer(request, order)

    def _check_size(self, walk: Walk, keyframes: int, place: str) -> None:
        if walk.frames(keyframes) > (limit := self._max_frames):
            wrong = FieldError("/steps", walk.steps, f"at most {limit} frames in one answer", place)
            if keyframes > limit:
                wrong = FieldError("/keyframes", f"{keyframes} key frames", f"at most {limit}", place)
            raise TooLarge(
                f"one answer has at most {limit} frames; ask for fewer {wrong.pointer[1:]}", [wrong]
            )


def _source(i: int, keyframe: Keyframe) -> Source:
    if keyframe.latent is not None:
        return Source(i, values=tuple(keyframe.latent))
    return Source(keyframe.index, keyframe.seed)
