"""Reading requests: bodies and queries as their types, the format of the response, the deadline."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.errors import (
    FieldError,
    InvalidRequest,
    MalformedBody,
    NotAcceptable,
    RequestError,
    TooLarge,
    UnsupportedMediaType,
)
from service.generation.encoding import Format

Model = TypeVar("Model", bound=BaseModel)
TIMEOUT = "X-Request-Timeout"
MAX_WRONG = 20  # wrong fields that a response lists
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT,
    "in": "header",
    "required": False,
    "description": "Seconds after which the response is of no use; it shortens the deadline of the settings.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def parse_body(model: type[Model], content: bytes, limits: Mapping[str, int] | None = None) -> Model:
    """Return JSON as a model; an empty body is an empty object.

    Raises MalformedBody, RequestValidationError, and TooLarge if a field of `limits` is over its limit.
    """
    try:  # the JSON by itself: pydantic would copy all of a long list to validate its first items
        return model.model_validate(from_json(content or b"{}", allow_inf_nan=False))
    except ValidationError as error:
        raise _request_error(error, model, "body", limits or {}) from error
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error


async def read_json(request: Request, model: type[Model], limits: Mapping[str, int]) -> Model:
    """Return a request's JSON body as a model.

    Raises as parse_body does, and InvalidRequest for a query beside the body, UnsupportedMediaType.
    """
    if request.scope["query_string"]:
        wrong = [
            FieldError(f"/{name}", value, "none: it belongs in the body", "query")
            for name, value in request.query_params.items()
        ]
        if wrong:
            raise InvalidRequest("a request with a body has no query; send its fields in the body", wrong[:MAX_WRONG])
    content = (await request.receive())["body"]  # whole: the middleware has read it
    if not content:
        missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
        raise RequestValidationError([missing])
    require_json(request)
    return parse_body(model, content, limits)


def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body's Content-Type is JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    if kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise UnsupportedMediaType("the body must be JSON; send the header 'Content-Type: application/json'")


def read_query(request: Request, model: type[Model], limits: Mapping[str, int]) -> Model:
    """Return a request's query as a model.

    Raises RequestValidationError, InvalidRequest for a repeated parameter that is not a list, and TooLarge.
    """
    given = request.query_params.multi_items()
    lists = {field.alias or name for name, field in model.model_fields.items() if _is_list(field.annotation)}
    repeated = [n for n, times in Counter(n for n, _ in given).items() if times > 1 and n not in lists]
    if repeated:
        wrong = [FieldError(f"/{n}", request.query_params.getlist(n), "once", "query") for n in repeated[:MAX_WRONG]]
        raise InvalidRequest(f"{', '.join(map(repr, repeated)):.80} is given several times; allowed is once", wrong)
    values: dict[str, Any] = {name: value for name, value in given if name not in lists}
    for name in lists & {name for name, _ in given}:
        values[name] = [value for other, value in given if other == name]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _request_error(error, model, "query", limits) from error


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))


def _request_error(
    error: ValidationError, model: type[BaseModel], place: str, limits: Mapping[str, int]
) -> RequestError | RequestValidationError:
    """Return the error for what pydantic found; over a limit of the settings it is TooLarge."""
    if (count := error.error_count()) > MAX_WRONG:
        return InvalidRequest(f"the {place} has {count} wrong or unknown fields, too many to list")
    for problem in error.errors(include_url=False, include_input=False):  # input may be large
        name = str(problem["loc"][0]) if len(problem["loc"]) == 1 else ""
        if name in limits and problem["type"] in ("too_long", "less_than_equal"):
            wrong = FieldError(f"/{name}", problem["ctx"].get("actual_length"), f"at most {limits[name]}", place)
            return TooLarge(f"'{name}' is limited to {limits[name]} in one request; send several", [wrong])
    return RequestValidationError([_located(problem, model, place) for problem in error.errors(include_url=False)])


def _located(problem: Any, model: type[BaseModel], place: str) -> dict[str, Any]:
    """Return a problem with its place; one of an unknown field with the known names."""
    if problem["type"] == "extra_forbidden":
        for step in problem["loc"][:-1]:
            model = next(_models(model.model_fields[step].annotation)) if isinstance(step, str) else model
        known = [field.alias or own for own, field in model.model_fields.items()]
        problem = problem | {"type": "unknown_field", "ctx": {"known": known}}
    return {**problem, "loc": (place, *problem["loc"])}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models within a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def choose_format(requested: str | None, accept: str | None, formats: Mapping[str, Format]) -> str:
    """Return the name of a format; `requested` wins over the header Accept. Raises NotAcceptable."""
    if requested is not None:
        return requested
    if not accept or accept == "*/*":
        return next(iter(formats))
    ranges = _media_ranges(accept)
    quality = {name: _quality(form.media_type, ranges) for name, form in formats.items()}
    best = max(quality, key=lambda name: quality[name])  # the first of equals
    if quality[best] <= 0:
        offered = [form.media_type for form in formats.values()]
        wrong = FieldError("/accept", accept, offered, place="header")
        raise NotAcceptable(f"available are {', '.join(offered)}", [wrong])
    return best


def _media_ranges(accept: str) -> dict[str, float]:
    ranges = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            ranges[media_range] = float(weight)
        except ValueError:
            ranges[media_range] = 0.0
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return the weight of the most specific range that covers a media type."""
    family = media_type.split("/")[0] + "/*"
    return next((ranges[key] for key in (media_type, family, "*/*") if key in ranges), 0.0)


def deadline(request: Request, longest_s: float) -> float:
    """Return a request's deadline in the event loop's time. Raises InvalidRequest."""
    given = request.headers.get(TIMEOUT)
    return asyncio.get_running_loop().time() + (longest_s if given is None else min(longest_s, _seconds(given)))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        wrong = FieldError(f"/{TIMEOUT.lower()}", text, "seconds, above 0", "header")
        raise InvalidRequest(f"{TIMEOUT}: {wrong.allowed}", [wrong])
    return seconds
