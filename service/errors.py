"""Errors of the service, one class a situation.

ServiceError
├── StartError                  the process exits with status 2 and one line
│   ├── SettingsError           a setting is wrong
│   └── ProviderMissing         a GPU was requested and is not available
└── RequestError                sent as a problem+json with the class's status and code
    ├── MalformedRequest        400  not HTTP
    ├── MalformedBody           400  not JSON
    ├── Unauthorized            401  no key, or a wrong one
    ├── Forbidden               403  sent by a page of another site
    ├── UnknownPath             404  no such route
    ├── UnknownModel            404  no such model
    ├── WrongMethod             405  the route has other methods
    ├── NotAcceptable           406  no format that `Accept` allows
    ├── SlowBody                408  a body that does not arrive
    ├── DigestMismatch          409  another file of the model is served
    ├── TooLarge                413  body, pairs, frames or pixels over a limit
    ├── UnsupportedMediaType    415  a body that says it is not JSON, or compressed
    ├── InvalidRequest          422  a field is wrong
    ├── LoadRefused             422  a model file that cannot be served
    ├── QueueFull               429  too many requests wait
    ├── RateLimited             429  over the rate limit
    ├── HeadTooLarge            431  headers over the limit
    ├── RunFailed               500  the model failed on this request
    ├── InternalError           500  a defect of the service
    ├── Unsupported             501  part of a protocol that the service does not have
    ├── NotReady                503  no model, or shutting down
    ├── Stuck                   503  a batch that does not end
    ├── DeadlineExceeded        504  not computed in time
    └── OtherError              any  a status that a library chose
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ServiceError(Exception):
    """Anything that the service itself reports."""


class StartError(ServiceError):
    """The service cannot start; the process exits with status 2."""


class SettingsError(StartError):
    """A setting is wrong."""


class ProviderMissing(StartError):
    """onnxruntime lacks the requested execution provider."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field: a JSON pointer to it, the value as sent, and a sentence or list of what is allowed."""

    pointer: str
    value: Any
    allowed: str | Sequence[str]
    place: str = "body"  # or "query", "path", "header"


class RequestError(ServiceError):
    """An error that the client receives as a problem+json with `status` and `code`."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init_subclass__(cls, status: int) -> None:
        """Set the status, and the code: the name of the class in snake case."""
        cls.status, cls.code = status, re.sub(r"(?<!^)([A-Z])", r"_\1", cls.__name__).lower()

    def __init__(self, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


class MalformedRequest(RequestError, status=400):
    """The bytes received are not valid HTTP/1.1."""


class MalformedBody(RequestError, status=400):
    """The body is not JSON."""


class Unauthorized(RequestError, status=401):
    """The key is missing or wrong."""


class Forbidden(RequestError, status=403):
    """A page of another site sent a request that changes the service."""


class UnknownPath(RequestError, status=404):
    """No route has this path."""


class UnknownModel(RequestError, status=404):
    """No served model has this name."""


class WrongMethod(RequestError, status=405):
    """The route exists, with other methods."""


class NotAcceptable(RequestError, status=406):
    """The `Accept` header allows none of the formats."""


class SlowBody(RequestError, status=408):
    """The body did not arrive in time."""


class DigestMismatch(RequestError, status=409):
    """The model has another digest than the one requested."""


class TooLarge(RequestError, status=413):
    """The body, or the pairs, frames or pixels of the response, are over a limit."""


class UnsupportedMediaType(RequestError, status=415):
    """The body's Content-Type is not JSON, or the body is compressed."""


class InvalidRequest(RequestError, status=422):
    """A field is missing, unknown or out of range."""


class LoadRefused(RequestError, status=422):
    """The model to load is refused; the version served before stays."""


class QueueFull(RequestError, status=429):
    """The queue has no room for this request."""


class RateLimited(RequestError, status=429):
    """The key or the address is over the rate limit."""


class HeadTooLarge(RequestError, status=431):
    """The request line and the headers are over the limit."""


class RunFailed(RequestError, status=500):
    """The model failed on this request's latents."""


class InternalError(RequestError, status=500):
    """A defect of the service; its log has the cause under the request id."""


class Unsupported(RequestError, status=501):
    """The protocol has this, the service does not."""


class NotReady(RequestError, status=503):
    """No model is served, or the service is shutting down."""


class Stuck(RequestError, status=503):
    """A worker thread hangs; only a restart helps."""


class DeadlineExceeded(RequestError, status=504):
    """The response was not computed before the deadline."""


class OtherError(RequestError, status=500):
    """An error whose status a library chose, such as an HTTPException of Starlette."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail, headers=headers)
        self.status = status  # type: ignore[misc]  # of this instance alone
