"""A body that is JSON, as the type that it should be, or an error that names the field."""

from __future__ import annotations

from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.errors import MalformedBody

Body = TypeVar("Body", bound=BaseModel)


def parse_body(kind: type[Body], content: bytes) -> Body:
    """Read JSON of a kind; no body is an empty object. Raises MalformedBody and RequestValidationError."""
    try:
        return kind.model_validate_json(content or b"{}")
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if problems[0]["type"] == "json_invalid":
            raise MalformedBody(f"the body is not JSON: {problems[0]['ctx']['error']}") from error
        located = [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        raise RequestValidationError(located) from error
