"""uvicorn's HTTP/1.1 protocol with what it lacks and cannot be configured to have.

The only place that depends on uvicorn's internals. It bounds the time and the size of a head, requests that are
pipelined, and the time in which a client reads nothing; asks for one Host; keeps the body of a request that offers
another protocol; answers what is not HTTP with a problem+json; and answers a connection accepted while it shuts down.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
from typing import ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadTooLarge, MalformedRequest, RequestError
from service.http.problems import problem_response
from service.settings import Settings
from service.telemetry.metrics import Metrics

MAX_HEAD = 2**16  # bytes of the request line and the headers; other servers take 8 to 64 KiB
TOO_LARGE = f"the head is larger than {MAX_HEAD} bytes"
MAX_PIPELINED = 16  # requests behind the one that is being answered
FIRST_REQUEST_S = 1.0  # for a new connection, when the server shuts down
OFFERS = (b"upgrade", b"http2-settings")  # headers of an offer, and what `Connection` says of them


class Connection(HttpToolsProtocol):
    """One TCP connection, which is closed if its client is slow to send a head, or reads nothing of a response."""

    settings: ClassVar[Settings]
    metrics: ClassVar[Metrics]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvloop's is not registered as one
        self._data = b""
        self._in_head, self._head_bytes, self._since_body = False, 0, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._time_head(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._time_head(False)
        super().connection_lost(exc)
        self.pipeline.clear()
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        """Parse data, and check how much of a head has arrived."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        self._since_body += len(data)
        self._parse(data)
        size = self._head_bytes if self._in_head else self._since_body
        if size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HeadTooLarge(TOO_LARGE))
        answering = self.cycle is not None and not self.cycle.response_complete
        self._time_head(not answering and not self.transport.is_closing())

    def _parse(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)
        self._data = b""  # an idle connection keeps none of it

    def on_message_begin(self) -> None:
        """Start to count a head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header without the white space after its value, which is not of it (RFC 9110, section 5.5)."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Start a request, unless its head is refused; an exception ends in `send_400_response`."""
        self._in_head, self._since_body = False, 0
        if self._head_bytes + len(self._data) > MAX_HEAD:  # perhaps; the chunk may be the body's
            self._head_bytes = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
            if self._head_bytes > MAX_HEAD:
                raise HeadTooLarge(TOO_LARGE)
        if len(self.pipeline) == MAX_PIPELINED:
            raise MalformedRequest("too many pipelined requests")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):  # RFC 9112, section 3.2
            raise MalformedRequest("the request needs one Host header")
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._offered:
            super().on_headers_complete()
            self.headers = []  # trailers are added here, and not to the request's headers

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body of a request that offers no other protocol."""
        if not self._offered:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Parse a request again without its offer; uvicorn calls this when its parser has stopped at one.

        Java's HttpClient and `curl --http2` offer h2c, even with a body; servers may ignore it (RFC 9110, section 7.8).
        """
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        if not self._offered:
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                words = [word.strip() for word in value.split(b",")]
                value = b", ".join(word for word in words if word.lower() not in OFFERS)
            if value and name not in OFFERS:
                lines.append(b"%s: %s" % (name, value))
        rest = self._data[stopped.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"\r\n".join([*lines, b"", b""]) + rest)

    def send_400_response(self, msg: str) -> None:
        """Send a problem, where uvicorn sends plain text."""
        allowed = "HTTP/1.1 with one Host header, and a URL in which all that is not ASCII is percent-encoded"
        malformed = MalformedRequest(f"{msg} Allowed is {allowed}.")
        self._refuse(HeadTooLarge(TOO_LARGE) if self._head_bytes > MAX_HEAD else malformed)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one whose last response is still being read is watched instead."""
        if not self._unread():
            self.transport.close()
            return
        if self._send_timer is None:
            self._watch_reader()
        timer = self.loop.call_later(self.settings.send_timeout_s, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = timer

    def on_response_complete(self) -> None:
        """Watch that the last response of a connection is read, as no keep-alive timer does."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def pause_writing(self) -> None:
        """Start to watch a client that reads slowly."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop watching, as nearly all is read; of the last response all has to be."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def _stop_watching(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _watch_reader(self, before: int | None = None) -> None:
        """Disconnect if nothing was read since `before` bytes were unsent; otherwise check again later."""
        self._stop_watching()
        unsent = self._unread()
        if before is not None and unsent >= before:
            self.transport.abort()
        elif unsent:
            self._send_timer = self.loop.call_later(self.settings.send_timeout_s, self._watch_reader, unsent)

    def _unread(self) -> int:
        """Return the bytes that the client has not taken, if any wait here; 0 if all are sent.

        Those that the kernel holds count, too: it asks for more only when a third of its buffer is free, which can be a
        megabyte.
        """
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            with contextlib.suppress(OSError):  # the client has left, or this is not Linux
                held = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
                unsent += int.from_bytes(held, sys.byteorder)
        return unsent

    def shutdown(self) -> None:
        """Close when the current request is answered; a connection without one gets a moment to send it."""
        if self.cycle is None:
            self.loop.call_later(FIRST_REQUEST_S, super().shutdown)  # does nothing to a closed connection
        else:
            super().shutdown()

    def _time_head(self, wanted: bool) -> None:
        """Start or stop the timer of a head."""
        if wanted and self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.settings.head_timeout_s, self.transport.abort)
        elif not wanted and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: RequestError) -> None:
        """Send a problem and close; if a request before it is being answered, close after that."""
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        response = problem_response(error)
        self.metrics.requests.labels("unmatched", "OTHER", error.status).inc()
        head = [b"HTTP/1.1 %d Refused" % response.status_code, b"connection: close"]
        head += [b"%s: %s" % header for header in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self._watch_reader()
        self.transport.close()
