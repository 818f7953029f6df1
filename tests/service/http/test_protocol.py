"""uvicorn's protocol within limits: slow, endless, odd and malformed requests, and slow readers. Real sockets."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import httpx
import onnx
import pytest
import uvicorn
from onnx import helper
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.http import protocol
from service.metadata import METADATA_KEY
from tests.conftest import build_graph, describe_model
from tests.running import listening, serving
from tests.service.http.raw import problem, talk

pytestmark = pytest.mark.anyio
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODY = b'{"seed": 7}'
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
OFFER = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + BODY + b"\r\n0\r\n"
LARGE = "/generate?seed=1&count=64&format=npz"
SMALL = "/generate?seed=1&count={}&format=npz&domains=small"
IMAGE = 64 * 64  # bytes of each image of SMALL
LARGE_SIDE = 384  # pixels: 64 grey images of it are 9.4 MB


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run on the loop that the service runs on."""
    return "asyncio", {"use_uvloop": True}


# Names of uvicorn that it may change without notice: those that service/http/protocol.py uses or overrides
UVICORN_INTERNALS = (
    *("_unsupported_upgrade_warning", "data_received", "eof_received", "on_body", "on_header"),
    *(
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
    ),
    *("send_400_response", "shutdown", "timeout_keep_alive_handler"),
)
UVICORN_ATTRIBUTES = (
    *("cycle", "headers", "loop", "parser", "pipeline", "timeout_keep_alive", "timeout_keep_alive_task"),
    *("transport", "url"),
)
CYCLE_ATTRIBUTES = ("keep_alive", "more_body", "response_complete")


def test_uvicorn_still_has_the_internals_that_are_used() -> None:
    """A new version of uvicorn that renames one of them fails here, and not in production."""
    config = uvicorn.Config(lambda: None, loop="none", lifespan="off")
    connection = HttpToolsProtocol(config, ServerState(), {}, asyncio.new_event_loop())
    connection.on_message_begin()
    missing = [name for name in UVICORN_INTERNALS if not hasattr(HttpToolsProtocol, name)]
    missing += [name for name in UVICORN_ATTRIBUTES if name not in vars(connection)]
    cycle = inspect.getsource(RequestResponseCycle.__init__)
    missing += [name for name in CYCLE_ATTRIBUTES if f"self.{name} = " not in cycle]
    connection.loop.close()
    assert missing == []


def test_all_internals_of_uvicorn_that_are_used_are_listed() -> None:
    """Whatever the subclass overrides or reads of its base is in the lists, except what asyncio documents."""
    (connection,) = (
        node
        for node in ast.parse(Path(protocol.__file__).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Connection"
    )
    own, used, of_cycle = set[str](), set[str](), set[str]()
    for node in ast.walk(connection):
        if isinstance(node, ast.FunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.cycle":
            of_cycle.add(node.attr)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            (own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
    inherited = {name for name in own | used if hasattr(HttpToolsProtocol, name)} | (used - own) | {"parser"}
    listed = {*UVICORN_INTERNALS, *UVICORN_ATTRIBUTES}
    documented = {"connection_made", "connection_lost"}  # by asyncio.Protocol
    assert inherited - listed - documented == set()
    assert of_cycle == set(CYCLE_ATTRIBUTES)


# Heads and bodies that are slow or without end


@pytest.mark.parametrize(
    "pieces", [[], [b"\r\n"] * 200, [GET[:20]], [GET[:5]] + [b"a"] * 200, [GET[:-2]] + [b"x: y\r\n"] * 200]
)
async def test_an_incomplete_head_is_not_waited_for(folder: Path, pieces: list[bytes]) -> None:
    """Whether it stands still or drips, a connection without a request is closed after the time limit."""
    async with listening(folder, head_timeout_s=0.5) as port:
        answer, took = await talk(port, pieces, pause=0.05)
    assert answer == b""
    assert 0.4 < took < 8


@pytest.mark.parametrize("body", [[], [b" "] * 400])
async def test_an_incomplete_body_is_408(folder: Path, body: list[bytes]) -> None:
    """Whether it stands still or drips."""
    async with listening(folder, body_timeout_s=0.5) as port:
        answer, took = await talk(port, [POST + b"Content-Length: 1000\r\n\r\n", *body], pause=0.02)
    assert (problem(answer)["status"], problem(answer)["code"]) == (408, "slow_body")
    assert "0.5 seconds" in problem(answer)["detail"]
    assert 0.4 < took < 8


@pytest.mark.parametrize(
    "pieces",
    [
        [GET[:-2] + b"x: " + b"y" * 100_000 + b"\r\n\r\n"],
        [GET[:-2] + b"x: y\r\n" * 20_000 + b"\r\n"],
        [b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n"],
        itertools.chain([GET[:-2], b"x: "], itertools.repeat(b"y" * 1000)),
        itertools.chain([GET[:-2]], itertools.repeat(b"x: y\r\n" * 100)),
    ],
    ids=["large", "many", "url", "endless", "endlessly many"],
)
async def test_a_flood_of_headers_is_431(folder: Path, pieces: Iterable[bytes]) -> None:
    """What no honest client sends is refused when it grows, not when memory ends."""
    async with listening(folder) as port:
        answer, _ = await talk(port, pieces)
    assert (problem(answer)["status"], problem(answer)["code"]) == (431, "head_too_large")
    assert "65536 bytes" in problem(answer)["detail"]


async def test_white_space_around_a_value_is_not_of_it(folder: Path) -> None:
    """A key, a number or an encoding with a blank or a tab behind it is the same one."""
    key, spaced = "k" * 16, b"X-API-Key: \t" + b"k" * 16 + b" \t\r\nContent-Encoding: identity \r\n"
    async with listening(folder, api_keys=key) as port:
        head = POST + spaced + b"X-Request-Id: abc \r\nConnection: close \r\n"
        answer, _ = await talk(port, [head + b"Content-Length: %d \r\n\r\n" % len(BODY) + BODY])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: abc\r\n" in answer


async def test_trailers_are_no_headers(folder: Path) -> None:
    """Headers after a chunked body are allowed, and set neither request id nor timeout."""
    trailers = b"X-Request-Timeout: soon\r\nX-Request-Id: trailing\r\n\r\n"
    async with listening(folder) as port:
        answer, _ = await talk(port, [CHUNKED + trailers, LAST], pause=0.3)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"trailing" not in answer


@pytest.mark.parametrize(
    "endless",
    [itertools.repeat(b"a: b\r\n" * 100), itertools.chain([b"a: "], itertools.repeat(b"b" * 1000))],
    ids=["many", "long"],
)
async def test_endless_trailers_are_431(folder: Path, endless: Iterable[bytes]) -> None:
    """As many as in a head are refused, as there."""
    async with listening(folder) as port:
        answer, _ = await talk(port, itertools.chain([CHUNKED], endless))
    assert problem(answer)["code"] == "head_too_large"


async def test_a_client_that_sends_too_large_a_body_reads_the_response(folder: Path) -> None:
    """The rest of the body is discarded, so that a client that sends it first reads the response after."""
    content = b" " * 5_000_000
    async with listening(folder) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        await reader.readuntil(b"}")
        writer.write(LAST)
        assert b"HTTP/1.1 200" in await reader.read()
        writer.close()


# Requests that HTTP does not allow


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET /a b HTTP/1.1\r\n\r\n", "GET /größe HTTP/1.1\r\n\r\n".encode()],
)
async def test_what_is_not_http_gets_a_problem(folder: Path, noise: bytes) -> None:
    """Even what no route ever sees is answered in the one form of errors."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [noise])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem(answer)["code"] == "malformed_request"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nhost: y\r\n\r\n",
        b"GET /livez HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["none", "twice", "different", "twice in 1.0", "none beside an offer"],
)
async def test_a_request_needs_one_host(folder: Path, head: bytes) -> None:
    """RFC 9112, section 3.2: without a Host, or with two, a server must answer 400."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [head])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem(answer)["code"] == "malformed_request"
    assert "Host" in problem(answer)["detail"]


async def test_head_has_no_body(folder: Path) -> None:
    """The routes answer as to GET, and what they send as a body is left out."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [LAST.replace(b"GET", b"HEAD")])
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"content-length: 18\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("host", [b"", b"Host: x\r\n"])
async def test_http_1_0_needs_no_host(folder: Path, host: bytes) -> None:
    """The header came with HTTP/1.1."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [b"GET /livez HTTP/1.0\r\n" + host + b"\r\n"])
    assert b" 200 OK\r\n" in answer


async def test_what_is_refused_before_a_route_is_counted(folder: Path) -> None:
    """Floods of malformed or too large heads show in the metrics, as requests without a route."""
    async with listening(folder) as port:
        for pieces in ([b"hello\r\n\r\n"], [b"GET / HTTP/1.1\r\n\r\n"], [GET[:-2] + b"x: y\r\n" * 20_000 + b"\r\n"]):
            await talk(port, pieces)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            metrics = (await client.get("/metrics")).text
    assert 'cogan_http_requests_total{code="400",method="OTHER",route="unmatched"} 2.0' in metrics
    assert 'cogan_http_requests_total{code="431",method="OTHER",route="unmatched"} 1.0' in metrics


# Several requests on a connection


async def test_a_connection_between_requests_is_kept(folder: Path) -> None:
    """The limit is on a head that arrives, not on the pause before it."""
    async with listening(folder, head_timeout_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.5)
        writer.close()


async def test_few_requests_are_pipelined(folder: Path) -> None:
    """Of a flood on one connection the first are answered, then it is closed."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [GET * 5000])
    assert 1 <= answer.count(b"HTTP/1.1 200") <= 20
    assert b"HTTP/1.1 4" not in answer


async def test_noise_after_a_request_does_not_take_its_response(folder: Path) -> None:
    """A client takes the first response for that of its first request, whatever it sent after it."""
    async with listening(folder) as port:
        answer, _ = await talk(port, [GET + b"\x16\x03\x01 noise\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"status":"alive"}')


# Offers of other protocols


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client_that_offers_another_protocol_is_answered_in_this_one(folder: Path, at_once: bool) -> None:
    """With its body, in one packet or in two, and so is its next request."""
    head = OFFER + b"Content-Length: %d\r\n\r\n" % len(BODY)
    pieces = [head + BODY] if at_once else [head, BODY]
    async with listening(folder) as port:
        answer, _ = await talk(port, [*pieces, LAST], pause=0.1)
    assert answer.count(b"HTTP/1.1 200") == 2
    generated = answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0]
    assert json.loads(generated)["pairs"][0]["seed"] == 7


async def test_an_offer_does_not_hide_connection_close(folder: Path) -> None:
    """What else `Connection` says holds; and CONNECT, which needs no offer, is no route."""
    closing = GET[:-2] + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    async with listening(folder) as port:
        answer, _ = await talk(port, [closing])
        assert answer.startswith(b"HTTP/1.1 200")
        answer, _ = await talk(port, [b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 4")


# Clients that read slowly


@pytest.fixture
def large(models_dir: Path) -> Path:
    """Return a models folder with a model whose responses are of 20 MB."""
    shapes = dict.fromkeys(("one", "two"), (LARGE_SIDE, LARGE_SIDE, 1)) | {"small": (64, 64, 1)}
    metadata = describe_model("large", "1", shapes)
    model = build_graph(metadata)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    path = models_dir / "large" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return models_dir


@asynccontextmanager
async def slow_client(port: int, path: str, *headers: bytes, buffer: int = 2**14) -> AsyncIterator[socket.socket]:
    """Give a socket with a small buffer that has sent a request."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400
        )  # as on a network: the window opens in small steps
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        lines = [b"GET %s HTTP/1.1" % path.encode(), b"Host: x", *headers, b"", b""]
        await loop.sock_sendall(client, b"\r\n".join(lines))
        yield client


async def read_rest(client: socket.socket, most: int = 2**30, pause: float = 0.0) -> int:
    """Read until the server closes, or so many bytes; return how many they were."""
    loop, size = asyncio.get_running_loop(), 0
    with suppress(ConnectionError):
        while size < most and (part := await asyncio.wait_for(loop.sock_recv(client, min(most, 2**17)), 30)):
            size += len(part)
            await asyncio.sleep(pause)
    return size


async def head_of(client: socket.socket) -> tuple[int, int]:
    """Read a response's head; return its content length, and how much of the content came with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 2**10), 30)
    head, _, content = head.partition(b"\r\n\r\n")
    (length,) = (line.split()[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(length), len(content)


async def wait_until_only_one(client: httpx.AsyncClient, limit_s: float = 20.0) -> None:
    """Wait until no request but this one is being answered."""
    async with asyncio.timeout(limit_s):
        while "cogan_requests_in_flight 1.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("headers", [[], [b"Connection: close"]], ids=["keep-alive", "close"])
async def test_a_client_that_reads_steadily_is_served_to_the_end(large: Path, headers: list[bytes]) -> None:
    """A download of 19 MB takes more than twice as long as every timeout, and is whole."""
    async with serving(large, send_timeout_s=1, max_pixels=2**26) as server:
        server.config.timeout_keep_alive = 1  # instead of over a minute
        async with slow_client(server.port, LARGE, *headers, buffer=2**16) as client:
            length, read = await head_of(client)
            start = asyncio.get_running_loop().time()
            read += await read_rest(client, length - read, pause=0.02)
            took = asyncio.get_running_loop().time() - start
    assert length > 18e6
    assert read == length
    assert took > 2.5


@pytest.mark.parametrize("headers", [[], [b"Connection: close"]], ids=["keep-alive", "close"])
@pytest.mark.parametrize("rest", ["much", "little"])
async def test_a_client_that_reads_nothing_is_cut(large: Path, headers: list[bytes], rest: str) -> None:
    """Whether much of the response is unsent or less than the low-water mark, of which asyncio gives no notice."""
    async with serving(large, send_timeout_s=2, max_pixels=2**26) as server:
        server.config.timeout_keep_alive = 1
        server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**13)
        async with slow_client(server.port, SMALL.format(32)) as client:
            in_kernels = 32 * IMAGE - await unsent(server)
        while server.server_state.connections:
            await asyncio.sleep(0.01)
        count = (in_kernels + 2**13) // IMAGE
        async with slow_client(server.port, SMALL.format(count) if rest == "little" else LARGE, *headers) as client:
            assert 0 < await unsent(server) < (2**14 if rest == "little" else 2**30)
            async with asyncio.timeout(30):
                while server.server_state.connections:
                    await asyncio.sleep(0.05)
            length, read = await head_of(client)
            assert read + await read_rest(client) < length


async def unsent(server: uvicorn.Server) -> int:
    """Return the bytes that the only connection holds when its request is answered."""
    connections = cast("set[HttpToolsProtocol]", server.server_state.connections)
    while not any(one.cycle and one.cycle.response_complete for one in connections):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    (connection,) = connections
    return int(connection.transport.get_write_buffer_size())


async def test_slow_readers_hold_no_thread(folder: Path) -> None:
    """With one thread and eight clients that read nothing of megabytes, the ninth is answered."""
    requests = b"GET /generate?seed=1&count=64 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    async with listening(folder, send_timeout_s=1) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(8)]
        for _, writer in slow:
            writer.write(requests)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            assert (await client.get("/generate?seed=2")).status_code == 200
            await wait_until_only_one(client)
        for reader, writer in slow:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(2**30)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
