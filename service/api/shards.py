"""/shards: an endless data set of pairs in numbered tars, each the same whenever and wherever it is requested."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from service.api.docs import BINARY, NOT_MODIFIED, Responses, add_image_route, problems
from service.api.options import deadline, read_query
from service.api.schemas import ShardQuery
from service.errors import DeadlineExceeded, DigestMismatch, FieldError, InvalidRequest
from service.generation.generator import Generator
from service.generation.shards import ShardSpec, tar
from service.http.middleware import header
from service.http.response_cache import matches
from service.latents import MAX_SEED
from service.telemetry.metrics import Metrics

MEDIA_TYPE = "application/x-tar"
NICENESS = 10  # of threads for bulk work, which yield the processor to all others
MAX_DIGITS = 16  # of a number
SLICE_S = 0.008  # of bulk work, until others may have its thread
MAX_WAIT_S = 0.05  # for other requests, before a slice: shards go on while there is no end of these
NUMBER: dict[str, Any] = {
    "name": "number",
    "in": "path",
    "required": True,
    "description": "Number of the shard, with or without leading zeros.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,16}$"},
}


def lower_priority() -> None:
    """Let this thread run when no other one wants the processor, where the system knows priorities of threads."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class ShardRoutes:
    """Shards are generated while they are sent, slice by slice, in threads of their own that yield to all else."""

    def __init__(
        self, generator: Generator, bulk: Executor, busy: Callable[[], bool], metrics: Metrics, deadline_s: float
    ) -> None:
        """`busy` returns whether other requests are being computed."""
        self._generator, self._bulk, self._busy, self._deadline_s = generator, bulk, busy, deadline_s
        self._count = metrics.shard_pairs.inc

    def add_to(self, app: FastAPI) -> None:
        """Add the route to an app."""
        found: Responses = {200: {"content": {MEDIA_TYPE: BINARY}, "description": "The shard"}}
        responses = found | NOT_MODIFIED | problems(404, 409, 422, 500, 503, 504)
        path = "/shards/{number}.tar"
        add_image_route(app, "GET", path, self.send_shard, responses, ShardQuery, parameters=[NUMBER])

    async def send_shard(self, request: Request) -> Response:
        """Send a shard: of each of its seeds a pair, as <seed>.<domain>.png, and its labels, as <seed>.json.

        With filters the pair is the first candidate that passes; the member `__skipped__` lists seeds without one.
        """
        query = read_query(request, ShardQuery)
        deadline(request, self._deadline_s)  # checked, even if nothing is computed
        shard = self._spec(query, request.path_params["number"])
        name = f"{shard.pairs.model.name}-{shard.seeds.start // query.size:06d}.tar"
        headers = {"ETag": f'"{shard.key}"', "Cache-Control": "no-cache"}
        if matches(header(request, "if-none-match") or "", shard.key):
            return Response(status_code=304, headers=headers)
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
        if request.scope.get("headless"):
            return StreamingResponse((), headers=headers, media_type=MEDIA_TYPE)  # nobody knows its length
        parts = self._slices(tar(shard, self._count), lambda: deadline(request, self._deadline_s))
        first = await anext(parts)  # what fails by now has a status of its own
        return StreamingResponse(_chain(first, parts), headers=headers, media_type=MEDIA_TYPE)

    def _spec(self, query: ShardQuery, number: str) -> ShardSpec:
        most = (MAX_SEED + 1) // query.size - 1  # whose last seed is one
        if not (number.isascii() and number.isdigit()) or len(number) > MAX_DIGITS or int(number) > most:
            wrong = FieldError("/number", number, f"a whole number up to {most} for shards of {query.size}", "path")
            raise InvalidRequest(f"no shard {number!r:.40}: allowed is {wrong.allowed}, as seeds end at 2^53", [wrong])
        start, model = int(number) * query.size, self._generator.model(query.model, "query")
        if query.digest not in (None, model.digest):
            wrong = FieldError("/digest", query.digest, [model.digest], "query")
            raise DigestMismatch(f"model '{model.name}' is served with digest {model.digest}", [wrong])
        pairs = self._generator.spec(
            model,
            domains=query.domains,
            latents=(),
            place="query",
            truncation=query.truncation,
            directions=query.directions,
            labels=query.labels,
            filters=query.filters,
        )
        return ShardSpec(pairs, range(start, start + query.size), query.format)

    async def _slices(self, parts: Iterator[bytes], until: Callable[[], float]) -> AsyncIterator[bytes]:
        """Yield what slices of work make, each after the one before is sent. Raises DeadlineExceeded for a late one.

        Each slice has a deadline of its own: filters may pass over thousands of candidates before there is a pair.
        """
        loop, done = asyncio.get_running_loop(), False
        while not done:
            try:
                async with asyncio.timeout_at(until()):
                    made, done = await loop.run_in_executor(self._bulk, self._work, parts)
            except TimeoutError as error:
                late = "a run of the shard's model was not computed before the deadline: request it later"
                raise DeadlineExceeded(late) from error
            if made:
                yield made

    def _work(self, parts: Iterator[bytes]) -> tuple[bytes, bool]:
        """Work for a slice, after a while of waiting for others; return what it made, and whether it is the last."""
        patience = time.perf_counter() + MAX_WAIT_S
        while self._busy() and time.perf_counter() < patience:
            time.sleep(0.001)
        until, made = time.perf_counter() + SLICE_S, list[bytes]()
        for part in parts:
            made.append(part)
            if time.perf_counter() >= until:
                return b"".join(made), False
        return b"".join(made), True


async def _chain(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in others:
        yield part
