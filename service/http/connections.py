"""What one TCP connection may do to the service: be slow at the head of a request, or at taking an answer.

uvicorn bounds neither; it only closes connections that are idle between two requests.
"""

from __future__ import annotations

import asyncio
from typing import cast

from service.errors import HeadTooLarge, MalformedRequest, RequestError
from service.http.gathering import Gathering
from service.http.joined_writes import JoinedWrites
from service.http.plain_protocol import PlainProtocol
from service.http.problems import problem_response

MAX_HEAD = 2**16  # bytes of the request line and the headers; other servers take 8 to 64 KiB
MOST_WAITING = 16  # requests that come before the one ahead of them is answered


class Connection(PlainProtocol):
    """Ends a connection whose head is late or over MAX_HEAD, or whose client takes nothing of its answer.

    Headers behind a body are bounded alike, and count for nothing; no more than MOST_WAITING requests wait.
    """

    head_timeout_s: float
    send_timeout_s: float
    gathering: Gathering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvloop's is registered as none
        self.transport = cast("asyncio.Transport", JoinedWrites(self.transport, self.loop))
        self._in_head, self._head_bytes, self._chunk, self._since_body = False, 0, 0, 0
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._await_head(wanted=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """End every wait."""
        self._await_head(wanted=False)
        super().connection_lost(exc)
        self.pipeline.clear()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read what has come, now or together with what comes to others."""
        if not self.gathering.keep(self, data):
            self.read(data)

    def eof_received(self) -> None:
        """Read what has come before the client said that no more will."""
        self.gathering.end()

    def shutdown(self) -> None:
        """End once what has come is answered."""
        self.gathering.end()
        super().shutdown()

    def read(self, data: bytes) -> None:
        """Parse, and see how far the head of a request has come."""
        if self.transport.is_closing():
            return
        self._chunk = len(data)
        if self._in_head:
            self._head_bytes += self._chunk
        self._since_body += self._chunk
        super().read(data)
        over = self._head_bytes if self._in_head else self._since_body
        if over > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HeadTooLarge(f"the head is larger than {MAX_HEAD} bytes"))
        answering = self.cycle is not None and not self.cycle.response_complete
        self._await_head(wanted=not answering and not self.transport.is_closing())

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._since_body = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Let the request go on unless its head is too large; what is raised ends in `send_400_response`."""
        self._in_head, self._since_body = False, 0
        if self._head_bytes + self._chunk > MAX_HEAD:  # it may be; the chunk may be the body's
            self._head_bytes = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
            if self._head_bytes > MAX_HEAD:
                raise HeadTooLarge("the head is too large")
        if len(self.pipeline) == MOST_WAITING:
            raise MalformedRequest("too many requests wait on one connection")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, where uvicorn has plain text."""
        if self._head_bytes > MAX_HEAD:
            self._refuse(HeadTooLarge(f"the head is larger than {MAX_HEAD} bytes"))
        else:
            self._refuse(MalformedRequest(f"{msg} Allowed is HTTP/1.1."))

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, and cut it where the last answer was not taken."""
        self._end()

    def pause_writing(self) -> None:
        """Begin to watch a client that takes its answer slowly."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop watching: nearly all is taken."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _watch_reader(self, left: int | None = None) -> None:
        """Cut the connection where nothing was taken since `left` bytes were left; else look again later."""
        now_left = self.transport.get_write_buffer_size()
        if left is not None and now_left >= left:
            self.transport.abort()
        else:
            self._writing = self.loop.call_later(self.send_timeout_s, self._watch_reader, now_left)

    def _await_head(self, wanted: bool) -> None:
        if wanted and self._reading is None and self.timeout_keep_alive_task is None:
            self._reading = self.loop.call_later(self.head_timeout_s, self._end)
        elif not wanted and self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _end(self) -> None:
        if self.gathering.holds(self):  # in time
            self._reading = None
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be read, and close; what was read before is answered in its place."""
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        answer = problem_response(error)
        head = [b"HTTP/1.1 %d Refused" % answer.status_code, b"connection: close"]
        head += [b"%s: %s" % header for header in answer.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
