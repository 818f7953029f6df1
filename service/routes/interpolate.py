"""/interpolate: coupled images on a way through latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response

from service.encoding import FRAME_FORMATS
from service.errors import FieldError, TooLarge
from service.generator import Generator, check_domains, check_latents
from service.latents import default_method
from service.orders import Order, Source, Walk
from service.routes.answers import answer_order
from service.routes.documents import image_responses
from service.routes.negotiation import choose_format
from service.schemas import InterpolateAnswer, InterpolateQuery, InterpolateRequest, Keyframe
from service.settings import Settings


def interpolate_router(generator: Generator, settings: Settings) -> APIRouter:
    """Build the routes of /interpolate."""
    router = APIRouter(tags=["images"], default_response_class=Response)
    responses = image_responses(InterpolateAnswer, FRAME_FORMATS)

    async def answer(
        request: Request,
        choice: InterpolateQuery | InterpolateRequest,
        keyframes: Sequence[Keyframe],
        place: str,
    ) -> Response:
        name = choose_format(choice.format, request.headers.get("accept"), FRAME_FORMATS)
        model = generator.model(choice.model, place)
        method = choice.method or default_method(model.metadata.prior)
        order = Order(
            model=model.name,
            version=model.metadata.version,
            digest=model.digest,
            domains=check_domains(model, choice.domains, place),
            sources=tuple(_source(i, keyframe) for i, keyframe in enumerate(keyframes)),
            truncation=choice.truncation,
            walk=Walk(choice.steps, method, choice.loop),
            format=name,
        )
        _check_size(order.size, choice.steps, settings.max_frames, place)
        given = {f"/keyframes/{s.index}/latent": s.values for s in order.sources if s.values is not None}
        check_latents(model, given)
        return await answer_order(request, generator, order, settings.deadline_s)

    @router.get("/interpolate", responses=responses, summary="Images on the way between two seeds")
    async def interpolate_by_query(request: Request, query: Annotated[InterpolateQuery, Query()]) -> Response:
        """Answer equal queries with equal bytes, so with an ETag."""
        return await answer(request, query, [Keyframe(seed=query.start), Keyframe(seed=query.end)], "query")

    @router.post("/interpolate", responses=responses, summary="Images on the way through key frames")
    async def interpolate(request: Request, body: Annotated[InterpolateRequest, Body()]) -> Response:
        """Lead through key frames, each a seed or a latent."""
        return await answer(request, body, body.keyframes, "body")

    return router


def _source(i: int, keyframe: Keyframe) -> Source:
    if keyframe.latent is not None:
        return Source(i, values=tuple(keyframe.latent))
    return Source(keyframe.index, keyframe.seed)


def _check_size(size: int, steps: int, limit: int, place: str) -> None:
    if size > limit:
        error = FieldError("/steps", steps, f"at most {limit} frames in one answer", place)
        raise TooLarge(f"{size:.6g} frames in one answer are more than {limit}; ask for fewer steps", [error])
