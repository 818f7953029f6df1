"""Reading requests: bodies and queries as their types, the format of the response, the deadline."""

from __future__ import annotations

import asyncio
import codecs
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.api.schemas import Model
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
from service.http.middleware import BODY_SIZE, header

TIMEOUT = "X-Request-Timeout"
JSON_TYPE = re.compile(r"application/(.*\+)?json")  # media types of JSON
MAX_WRONG = 20  # wrong fields that a response lists
LARGE_BODY = 2**15  # bytes, from which on parsing takes over a millisecond
NO_LIMITS: Mapping[str, int] = {}
T = TypeVar("T")


def parse_body(model: type[Model], content: bytes, limits: Mapping[str, int] = NO_LIMITS) -> Model:
    """Return JSON as a model; an empty body is an empty object.

    Raises MalformedBody, RequestValidationError, and TooLarge if a field of `limits` is over its limit.
    """
    try:  # the JSON by itself: pydantic would copy all of a long list to validate its first items
        values = from_json(content.removeprefix(codecs.BOM_UTF8) or b"{}", allow_inf_nan=False)
    except ValueError as error:
        hint = "; it is UTF-16, send UTF-8" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
        raise MalformedBody(f"the body is not JSON: {error}{hint}") from error
    return _validate(model, values, "body", limits)


async def parse(content: bytes, read: Callable[[], T]) -> T:
    """Return what `read` makes of a body, in a thread if that takes a while."""
    return await asyncio.to_thread(read) if len(content) > LARGE_BODY else read()


async def read_json(request: Request, model: type[Model], limits: Mapping[str, int]) -> Model:
    """Return a request's JSON body as a model.

    Raises as parse_body does, and InvalidRequest for a query beside the body, UnsupportedMediaType.
    """
    require_no_query(request)
    content = (await request.receive())["body"]  # whole: the middleware has read it
    if not content:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    require_json(request)
    return parse_body(model, content, limits)


def require_no_query(request: Request) -> None:
    """Raise InvalidRequest for a query beside fields in the body."""
    if request.scope["query_string"] and (query := request.query_params):
        allowed = "none: it belongs in the body"
        wrong = [FieldError(f"/{name}", value, allowed, "query") for name, value in query.items()]
        raise InvalidRequest(
            "a request with fields in its body has no query; send all fields in the body", wrong[:MAX_WRONG]
        )


def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body's Content-Type is JSON."""
    media_type = (header(request, "content-type") or "").partition(";")[0].strip().lower()
    if not JSON_TYPE.fullmatch(media_type):
        wrong = FieldError("/content-type", media_type, "application/json", "header")
        raise UnsupportedMediaType("the body must be JSON; send the header 'Content-Type: application/json'", [wrong])


def read_query(request: Request, model: type[Model], limits: Mapping[str, int] = NO_LIMITS) -> Model:
    """Return a request's query as a model. Raises as `read_fields` does, and InvalidRequest for a GET with a body."""
    if request.method == "GET" and (size := request.scope.get(BODY_SIZE)):
        wrong = FieldError("", f"a body of {size} bytes", "none", "body")
        raise InvalidRequest("a GET has no body; send its fields in the query, or use POST", [wrong])
    return read_fields(request.query_params.multi_items(), model, "query", limits)


def read_fields(
    fields: Iterable[tuple[str, str]], model: type[Model], place: str, limits: Mapping[str, int] = NO_LIMITS
) -> Model:
    """Return the fields of a query or a form as a model.

    Raises RequestValidationError, InvalidRequest for a repeated field that is not a list, or a list that is not
    repeated, and TooLarge.
    """
    given: dict[str, list[str]] = {}
    for name, value in fields:
        given.setdefault(name, []).append(value)
    lists = {field.alias or name: _is_list(field.annotation) for name, field in model.model_fields.items()}
    _check_counts(given, lists, place)
    single = {name: values if lists.get(name) else values[0] for name, values in given.items()}
    return _validate(model, single, place, limits)


def _check_counts(given: Mapping[str, list[str]], lists: Mapping[str, bool], place: str) -> None:
    """Raise InvalidRequest for a list whose values are in one field, and for another known field that is repeated."""
    for name, values in given.items():
        if lists.get(name) and (joined := next((value for value in values if "," in value), None)):
            allowed = "&".join(f"{name}={value}" for value in joined.split(","))
            detail = f"'{name}' is a list, whose values have a field each: {allowed:.80}"
            raise InvalidRequest(detail, [FieldError(f"/{name}", joined, "one value", place)])
    if repeated := [name for name, values in given.items() if len(values) > 1 and lists.get(name) is False]:
        wrong = [FieldError(f"/{name}", given[name], "once", place) for name in repeated[:MAX_WRONG]]
        raise InvalidRequest(f"{', '.join(map(repr, repeated)):.80} is given several times; allowed is once", wrong)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))


def _validate(model: type[Model], values: Any, place: str, limits: Mapping[str, int]) -> Model:
    """Return values as a model; one over a limit of the settings is TooLarge."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        if (count := error.error_count()) > MAX_WRONG:
            raise InvalidRequest(f"the {place} has {count} wrong or unknown fields, too many to list") from error
        problems = error.errors(include_url=False)
        for problem in problems:
            name = str(problem["loc"][0]) if len(problem["loc"]) == 1 else ""
            if name in limits and problem["type"] in ("too_long", "less_than_equal"):
                sent = problem["ctx"].get("actual_length", problem["input"])
                wrong = FieldError(f"/{name}", sent, f"at most {limits[name]}", place)
                detail = f"'{name}' is limited to {limits[name]} in one request; send several"
                raise TooLarge(detail, [wrong]) from error
        raise RequestValidationError([_located(problem, model, place) for problem in problems]) from error


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


@contextmanager
def moved(move: Callable[[str], str]) -> Iterator[None]:
    """Change the pointers of errors, as the fields are elsewhere in this request."""
    try:
        yield
    except RequestError as error:
        error.errors = tuple(replace(one, pointer=move(one.pointer)) for one in error.errors)
        raise


def choose_format(
    requested: str | None, accept: str | None, formats: Mapping[str, Format], labels: bool = False
) -> str:
    """Return the name of a format; `requested` wins over the header Accept, which chooses one with room for labels.

    Raises NotAcceptable.
    """
    if requested is not None:
        return requested
    formats = {name: form for name, form in formats.items() if not (labels and form.picture)}
    if not accept or accept == "*/*":
        return next(iter(formats))
    ranges = _media_ranges(accept)
    quality = {name: _quality(form.media_type, ranges) for name, form in formats.items()}
    best = max(quality, key=lambda name: quality[name])  # the first of equals
    if quality[best] <= 0:
        offered = [form.media_type for form in formats.values()]
        raise NotAcceptable(f"available are {', '.join(offered)}", [FieldError("/accept", accept, offered, "header")])
    return best


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return the weight of the most specific range that covers a media type."""
    family = media_type.split("/")[0] + "/*"
    return next((ranges[key] for key in (media_type, family, "*/*") if key in ranges), 0.0)


def _media_ranges(accept: str) -> dict[str, float]:
    ranges = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges[media_range] = _number(next((p[2:] for p in parameters if p.startswith("q=")), "1"), otherwise=0.0)
    return ranges


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise


def deadline(request: Request, longest_s: float) -> float:
    """Return a request's deadline in the event loop's time. Raises InvalidRequest."""
    now, given = asyncio.get_running_loop().time(), header(request, TIMEOUT.lower())
    if given is None:
        return now + longest_s
    if not (seconds := _number(given, otherwise=math.nan)) > 0:
        wrong = FieldError(f"/{TIMEOUT.lower()}", given, "seconds, above 0", "header")
        raise InvalidRequest(f"{TIMEOUT}: {wrong.allowed}", [wrong])
    return now + min(longest_s, seconds)
