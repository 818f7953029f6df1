"""What can go wrong, one class a situation.

ServiceError
├── StartError                  ends the start with one line and exit status 2
│   ├── SettingsError           a setting is wrong
│   └── ProviderMissing         a GPU was asked for and is not there
└── RequestError                answered as a problem+json with the class's status and code
    ├── MalformedRequest        400  not HTTP
    ├── MalformedBody           400  not JSON
    ├── Unauthorized            401  no key, or a wrong one
    ├── UnknownPath             404  no such route
    ├── UnknownModel            404  no such model
    ├── WrongMethod             405  the route has other methods
    ├── NotAcceptable           406  no format that `Accept` allows
    ├── SlowBody                408  a body that does not arrive
    ├── TooLarge                413  body, pairs or frames over the limit
    ├── UnsupportedMediaType    415  a body that says it is not JSON, or compressed
    ├── InvalidRequest          422  a field is wrong
    ├── LoadRefused             422  a model file that cannot be served
    ├── QueueFull               429  too many wait already
    ├── RateLimited             429  more often than one may
    ├── HeadTooLarge            431  headers over the limit
    ├── RunFailed               500  the model failed on this request
    ├── InternalError           500  a defect of the service
    ├── NotReady                503  no model, or on the way out
    ├── Stuck                   503  a batch that does not end
    └── DeadlineExceeded        504  not computed in time
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ServiceError(Exception):
    """Anything that the service itself reports."""


class StartError(ServiceError):
    """The service cannot start."""


class SettingsError(StartError):
    """A setting is wrong."""


class ProviderMissing(StartError):
    """onnxruntime cannot compute on what was asked for."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field: a JSON pointer to it, the value as sent, and a sentence or list of what is allowed."""

    pointer: str
    value: Any
    allowed: str | Sequence[str]
    place: str = "body"  # or "query", "path", "header"


class RequestError(ServiceError):
    """A request that is answered with a problem+json of `status` and `code`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


class MalformedRequest(RequestError):
    """What came is not HTTP."""

    status, code = 400, "malformed_request"


class MalformedBody(RequestError):
    """The body is not JSON."""

    status, code = 400, "malformed_body"


class Unauthorized(RequestError):
    """The key is missing or wrong."""

    status, code = 401, "unauthorized"


class UnknownPath(RequestError):
    """No route has this path."""

    status, code = 404, "unknown_path"


class UnknownModel(RequestError):
    """No served model has this name."""

    status, code = 404, "unknown_model"


class WrongMethod(RequestError):
    """The route exists, with other methods."""

    status, code = 405, "wrong_method"


class NotAcceptable(RequestError):
    """The `Accept` header allows none of the formats."""

    status, code = 406, "not_acceptable"


class SlowBody(RequestError):
    """The body did not arrive in time."""

    status, code = 408, "slow_body"


class TooLarge(RequestError):
    """The body, or the number of pairs or frames, is over the limit."""

    status, code = 413, "too_large"


class UnsupportedMediaType(RequestError):
    """The body says that it is something else than JSON, or compressed."""

    status, code = 415, "unsupported_media_type"


class InvalidRequest(RequestError):
    """A field is missing, unknown or out of range."""

    status, code = 422, "invalid_request"


class LoadRefused(RequestError):
    """The model that was to be loaded is refused; what was served before still is."""

    status, code = 422, "load_refused"


class QueueFull(RequestError):
    """More latents wait than the queue may hold."""

    status, code = 429, "queue_full"


class RateLimited(RequestError):
    """The key or the address asks more often than it may."""

    status, code = 429, "rate_limited"


class HeadTooLarge(RequestError):
    """The request line and the headers are over the limit."""

    status, code = 431, "head_too_large"


class RunFailed(RequestError):
    """The model failed on this request's latents."""

    status, code = 500, "run_failed"


class InternalError(RequestError):
    """A defect of the service; its log has the cause under the request id."""


class NotReady(RequestError):
    """No model answers, or the service is on the way out."""

    status, code = 503, "not_ready"


class Stuck(RequestError):
    """A worker hangs, which only a new process mends."""

    status, code = 503, "stuck"


class DeadlineExceeded(RequestError):
    """The answer was not computed before the deadline."""

    status, code = 504, "deadline_exceeded"
