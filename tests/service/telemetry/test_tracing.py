"""Spans reach a collector that speaks OTLP, or a missing library is named. Real receiver, real service."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.errors import SettingsError
from service.telemetry.tracing import ENDPOINTS, make_tracer_provider
from tests.running import Service

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def exports() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Return the address of a collector, and what it has been sent."""
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_requests_are_traced(
    exports: tuple[str, list[ExportTraceServiceRequest]],
    tiny_model: Callable[..., Path],
    start: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A span continues the caller's trace, has route and parts of the work, and its trace is in the log."""
    endpoint, received = exports
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=pictures,deployment.environment=prod")
    tiny_model()
    service = start()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced"}
    assert httpx.post(f"{service.url}/generate", json={"seed": 7}, headers=headers).status_code == 200
    httpx.get(f"{service.url}/models", headers={"x-request-id": "new"})
    for _ in range(2):  # the second is a repeat
        httpx.get(f"{service.url}/generate?seed=1")
    httpx.get(f"{service.url}/readyz")
    service.process.terminate()
    assert service.process.wait(20) == 0
    resources = [group for export in received for group in export.resource_spans]
    sent = [span for group in resources for scope in group.scope_spans for span in scope.spans]
    spans = {span.name: span for span in sent}
    assert spans.keys() == {"POST /generate", "GET /models", "GET /generate"}
    routes = [a.value.string_value for span in sent for a in span.attributes if a.key == "http.route"]
    assert sorted(routes) == ["/generate"] * 3 + ["/models"]
    drawn = spans["POST /generate"]
    assert (drawn.trace_id.hex(), drawn.parent_span_id.hex()) == (TRACE, PARENT)
    names = {attribute.key for attribute in drawn.attributes}
    assert {"http.route", "cogan.queue_seconds", "cogan.run_seconds", "cogan.encode_seconds"} <= names
    assert service.wait_for(lambda line: line.get("request_id") == "traced")["trace_id"] == TRACE
    new = service.wait_for(lambda line: line.get("request_id") == "new")
    assert new["trace_id"] == spans["GET /models"].trace_id.hex()
    described = {attribute.key: attribute.value.string_value for attribute in resources[0].resource.attributes}
    assert (described["service.name"], described["deployment.environment"]) == ("pictures", "prod")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint without the extra ends the start, and says what to install."""
    monkeypatch.setenv(name, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=f"{name} = 'http://127.0.0.1:4318' needs .* extra 'tracing'"):
        make_tracer_provider()


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without the variable, nor where OpenTelemetry is turned off."""
    assert make_tracer_provider() is None
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_tracer_provider() is None
