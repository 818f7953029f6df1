"""/generate: coupled images of seeds or latents."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Query, Request, Response

from service.encoding import PAIR_FORMATS
from service.errors import FieldError, TooLarge
from service.generator import Generator, check_domains, check_latents
from service.latents import MAX_SEED
from service.orders import Order, Source
from service.routes.answers import answer_order
from service.routes.documents import image_responses
from service.routes.negotiation import choose_format
from service.schemas import GenerateAnswer, GenerateQuery, GenerateRequest
from service.settings import Settings


def generate_router(generator: Generator, settings: Settings) -> APIRouter:
    """Build the routes of /generate."""
    router = APIRouter(tags=["images"], default_response_class=Response)
    responses = image_responses(GenerateAnswer, PAIR_FORMATS)

    async def answer(request: Request, choice: GenerateQuery | GenerateRequest, place: str) -> Response:
        name = choose_format(choice.format, request.headers.get("accept"), PAIR_FORMATS)
        model = generator.model(choice.model, place)
        seed = secrets.randbelow(MAX_SEED + 1) if _needs_seed(choice) else choice.seed
        order = Order(
            model=model.name,
            version=model.metadata.version,
            digest=model.digest,
            domains=check_domains(model, choice.domains, place),
            sources=_sources(choice, seed, settings.max_pairs, place),
            truncation=choice.truncation,
            walk=None,
            format=name,
        )
        check_latents(model, {f"/latents/{s.index}": s.values for s in order.sources if s.values is not None})
        url = _url(order, choice) if _needs_seed(choice) else None
        return await answer_order(request, generator, order, settings.deadline_s, url)

    @router.get("/generate", responses=responses, summary="Coupled images of seeds")
    async def generate_by_query(request: Request, query: Annotated[GenerateQuery, Query()]) -> Response:
        """Answer equal queries with equal bytes, so with an ETag; without a seed, one is drawn."""
        return await answer(request, query, "query")

    @router.post("/generate", responses=responses, summary="Coupled images of seeds or latents")
    async def generate(request: Request, body: Annotated[GenerateRequest, Body()]) -> Response:
        """Answer equal bodies with equal bytes; without a seed, one is drawn and returned."""
        return await answer(request, body, "body")

    return router


def _needs_seed(choice: GenerateQuery | GenerateRequest) -> bool:
    latents = choice.latents if isinstance(choice, GenerateRequest) else None
    return choice.seed is None and choice.seeds is None and latents is None


def _sources(
    choice: GenerateQuery | GenerateRequest, seed: int | None, limit: int, place: str
) -> tuple[Source, ...]:
    if isinstance(choice, GenerateRequest) and choice.latents is not None:
        _check_size(len(choice.latents), "/latents", limit, place)
        return tuple(Source(i, values=tuple(values)) for i, values in enumerate(choice.latents))
    seeds = choice.seeds if choice.seeds is not None else [seed]
    _check_size(len(seeds) * choice.count, "/count" if choice.count > 1 else "/seeds", limit, place)
    return tuple(Source(index, seed) for seed in seeds for index in range(choice.count))


def _check_size(size: int, pointer: str, limit: int, place: str) -> None:
    if size > limit:
        error = FieldError(pointer, size, f"at most {limit} pairs in one answer", place)
        raise TooLarge(f"{size:.6g} pairs in one answer are more than {limit}; ask several times", [error])


def _url(order: Order, choice: GenerateQuery | GenerateRequest) -> str:
    """Return where the answer to a drawn seed is found again."""
    query: dict[str, object] = {"model": order.model, "seed": order.sources[0].seed, "count": choice.count}
    query |= {"domains": order.domains, "format": order.format}
    if order.truncation is not None:
        query["truncation"] = order.truncation
    return "/generate?" + urlencode(query, doseq=True)
