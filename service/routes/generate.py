"""/generate: coupled images of seeds or latents."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Body, FastAPI, Query, Request, Response

from service.errors import FieldError, TooLarge
from service.generation.encoding import PAIR_FORMATS
from service.generation.generator import Generator
from service.generation.orders import Order, Source
from service.latents import MAX_SEED
from service.routes.answers import ImageAnswers
from service.routes.image_routes import add_image_routes
from service.routes.negotiation import choose_format
from service.routes.openapi import image_responses
from service.routes.queries import refuse_repeats
from service.wire.answer_schemas import GenerateAnswer
from service.wire.schemas import GenerateQuery, GenerateRequest


class GenerateRoutes:
    """Equal requests have equal bytes for an answer, by GET and by POST; without a seed, one is drawn."""

    def __init__(self, generator: Generator, answers: ImageAnswers, max_pairs: int) -> None:
        self._generator, self._answers, self._max_pairs = generator, answers, max_pairs

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        responses = image_responses(GenerateAnswer, PAIR_FORMATS)
        add_image_routes(app, "/generate", self.generate_by_query, self.generate, responses)

    async def generate_by_query(self, request: Request, query: Annotated[GenerateQuery, Query()]) -> Response:
        """Draw the coupled images of seeds. With a seed the answer has an ETag; without, one is drawn."""
        refuse_repeats(request, "seeds", "domains")
        return await self._answer(request, query, "query")

    async def generate(self, request: Request, body: Annotated[GenerateRequest, Body()]) -> Response:
        """Draw the coupled images of seeds or latents; without either, a seed is drawn and returned."""
        return await self._answer(request, body, "body")

    async def _answer(
        self, request: Request, choice: GenerateQuery | GenerateRequest, place: str
    ) -> Response:
        latents = choice.latents if isinstance(choice, GenerateRequest) else None
        seeds = choice.seeds if choice.seed is None else [choice.seed]
        self._check_size(
            choice.count, "latents" if latents else "seeds", len(latents or seeds or [None]), place
        )
        seedless = latents is None and seeds is None
        order = self._generator.order(
            choice,
            sources=_sources(latents, seeds or [secrets.randbelow(MAX_SEED + 1)], choice.count),
            walk=None,
            format_=choose_format(choice.format, request.headers.get("accept"), PAIR_FORMATS),
            place=place,
        )
        url = _url(order, choice.count) if seedless else None
        return await self._answers.answer(request, order, url)

    def _check_size(self, count: int, name: str, given: int, place: str) -> None:
        if given * count > (limit := self._max_pairs):
            wrong = FieldError("/count", count, f"at most {limit // given} for each of {given} {name}", place)
            if given > limit:
                wrong = FieldError(f"/{name}", f"{given} {name}", f"at most {limit}", place)
            raise TooLarge(f"one answer has at most {limit} pairs; ask several times", [wrong])


def _sources(latents: list[list[float]] | None, seeds: list[int], count: int) -> list[Source]:
    if latents is not None:
        return [Source(i, values=tuple(values)) for i, values in enumerate(latents)]
    return [Source(index, seed) for seed in seeds for index in range(count)]


def _url(order: Order, count: int) -> str:
    """Return where the answer to a drawn seed is found again."""
    query: dict[str, object] = {"model": order.model.name, "seed": order.sources[0].seed, "count": count}
    query |= {"domains": order.domains, "format": order.format}
    if order.truncation is not None:
        query["truncation"] = order.truncation
    return "/generate?" + urlencode(query, doseq=True)
