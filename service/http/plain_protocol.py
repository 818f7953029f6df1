"""HTTP/1.1 whatever else a client offers: RFC 9110, section 7.8, lets a server pass over `Upgrade`.

uvicorn would lose the body, as its parser takes what follows the head for the other protocol's. Clients that
offer HTTP/2 with every first request are common (Java's HttpClient, `curl --http2`).
"""

from __future__ import annotations

import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

OFFERS = (b"upgrade", b"http2-settings")  # headers, and what `Connection` says of them


class PlainProtocol(HttpToolsProtocol):
    """Parses a request that offers another protocol anew, without the offer; drops headers behind a body."""

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self.read(data)

    def read(self, data: bytes) -> None:
        """Parse what has come."""
        self._data = data
        super().data_received(data)
        self._data = b""  # a connection that is idle holds none of it

    def on_headers_complete(self) -> None:
        """Let a request go on that offers nothing."""
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._offered:
            super().on_headers_complete()
            self.headers = []  # what comes behind the body is added here, and not to the request's

    def on_message_complete(self) -> None:
        """End the body of one that offers nothing."""
        if not self._offered:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on with a parser of its own; uvicorn calls this where the last one has stopped at an offer."""
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        if not self._offered:
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in map(_without_offer, self.headers) if header[1]]
        rest = self._data[stopped.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.read(b"\r\n".join([*lines, b"", b""]) + rest)


def _without_offer(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return a header with as much of its value as offers nothing."""
    name, value = header
    if name in OFFERS:
        return name, b""
    if name == b"connection":
        words = [word.strip() for word in value.split(b",")]
        value = b", ".join(word for word in words if word.lower() not in OFFERS)
    return name, value
