"""OpenTelemetry traces, if an endpoint is set: FastAPI makes a span for each request, this sends them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace

from service import __version__
from service.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def make_tracer_provider() -> TracerProvider | None:
    """Return an exporter to the endpoint in OpenTelemetry's own variables; None if they name no endpoint.

    Raises SettingsError if the libraries are missing: they are the extra `tracing`.
    """
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"{endpoint} = {os.environ[endpoint]!r} needs OpenTelemetry, which is not installed; "
            "install the package with the extra 'tracing'"
        ) from error
    ours = Resource.create({"service.name": "cogan", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def trace_route(method: str, path: str) -> None:
    """Name the current span after its route, as FastAPI does for requests that it routes."""
    span = trace.get_current_span()
    if span.is_recording():
        span.update_name(f"{method} {path}")
        span.set_attribute("http.route", path)


def trace_stages(seconds: Mapping[str, float]) -> None:
    """Add the seconds of each stage to the current span."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({f"cogan.{stage}_seconds": spent for stage, spent in seconds.items()})


def current_trace() -> str | None:
    """Return the trace id of the current span, if any."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
