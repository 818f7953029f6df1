"""Which pages of other origins may ask the service, and what of its headers they send and see."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.wire.inference import HEADER_LENGTH

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": [
        "Authorization",
        "X-API-Key",
        "X-Request-Id",
        "Traceparent",
        "X-Request-Timeout",
        "If-None-Match",
        HEADER_LENGTH,
    ],
    "expose_headers": [
        "X-Request-Id",
        "ETag",
        "Retry-After",
        "Server-Timing",
        "Content-Location",
        HEADER_LENGTH,
    ],
    "max_age": 600,
}


def allow_origins(app: FastAPI, origins: str) -> None:
    """Let pages of these origins ask, which are separated by commas."""
    app.add_middleware(CORSMiddleware, allow_origins=[one.strip() for one in origins.split(",")], **CORS)
