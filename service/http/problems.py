"""Errors as problem+json (RFC 9457)."""

from __future__ import annotations

import json
import math
import reprlib
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import FieldError, InternalError, InvalidRequest, OtherError, RequestError, UnknownPath
from service.telemetry.logs import REQUEST_ID

EXPECTED = (RequestError, HTTPException, RequestValidationError)  # everything else is a defect
MEDIA_TYPE = "application/problem+json"
PHRASES = {status.value: status.phrase for status in HTTPStatus}
MAX_VALUE = 80  # characters of a wrong value that are sent back
PLAINER = {"missing": "Required", "model_type": "Input should be a JSON object"}


def problem_response(error: Exception, path: str = "") -> Response:
    """Return the response to any exception; an unexpected one becomes an InternalError.

    Below /v2 it has the member `error`, too, which clients of the Open Inference Protocol read.
    """
    problem = error if isinstance(error, RequestError) else _as_request_error(error)
    if isinstance(problem, UnknownPath) and path.rstrip("/") and path.endswith("/"):
        problem.detail += "; its paths have no slash at the end"
    body: dict[str, Any] = {
        "title": PHRASES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "errors": [
            {"place": e.place, "pointer": e.pointer, "value": _shorten(e.value), "allowed": e.allowed}
            for e in problem.errors
        ],
        "request_id": REQUEST_ID.get(),
    }
    if path.startswith("/v2"):
        body["error"] = problem.detail
    return Response(json.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


def _as_request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestValidationError):
        return _from_validation(error)
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND:
            where = "the page docs at the root of the service lists what there is"
            return UnknownPath(f"there is nothing at this path; {where}")
        return OtherError(error.status_code, str(error.detail), dict(error.headers or {}))
    return InternalError("the service failed; its log has the cause under this request_id")


def _from_validation(error: RequestValidationError) -> RequestError:
    fields = [_field_error(problem) for problem in error.errors()]
    first, allowed = fields[0], fields[0].allowed
    if not isinstance(allowed, str):
        allowed = f"unknown; known are {', '.join(allowed) or 'none'}"
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return InvalidRequest(f"{first.place} {first.pointer}".strip() + f": {allowed}{more}", fields)


def _field_error(problem: dict[str, Any]) -> FieldError:
    place, *path = problem["loc"]
    kind, value = problem["type"], problem["input"]
    allowed = problem["ctx"]["known"] if kind == "unknown_field" else PLAINER.get(kind, problem["msg"])
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1")[:MAX_VALUE] for step in path)
    return FieldError(pointer, None if kind == "missing" else value, allowed, place)


def _shorten(value: Any) -> Any:
    """Return what JSON can carry, at most MAX_VALUE characters long."""
    if isinstance(value, str):
        return value if len(value) <= MAX_VALUE else value[:MAX_VALUE] + "…"
    number = (isinstance(value, float) and math.isfinite(value)) or (isinstance(value, int) and abs(value) < 2**53)
    return value if value is None or number else reprlib.repr(value)
