"""Errors of the service, one class a situation.

Exception
├── StartError            the process exits with status 2 and one line
│   ├── SettingsError
│   └── ProviderMissing
└── RequestError          sent as a problem+json with the class's status and code; below, by status
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class StartError(Exception):
    """The service cannot start; the process exits with status 2 and one line."""


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


class RequestError(Exception):
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

    @property
    def request_id(self) -> str | None:
        """Identifier of the request in the service's log, for a client that received the error."""
        return self.headers.get("x-request-id")


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
