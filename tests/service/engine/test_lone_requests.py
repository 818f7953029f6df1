"""A request that comes alone changes no thread where that would take as long as its run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine.batching import Batcher
from service.engine.entries import Job
from service.engine.onnx_model import Images, Latents, OnnxModel
from tests.service.engine.conftest import SLOW, latents

pytestmark = pytest.mark.anyio


async def test_a_quick_request_alone_needs_no_other_thread(make_batcher: Callable[..., Batcher]) -> None:
    """The first run, whose time nobody knows, and requests that come together leave the loop's thread."""
    batcher, own = make_batcher(runs=2), threading.current_thread()

    async def thread(size: int = 1) -> threading.Thread:
        job = Job(batcher.model, size, lambda start, stop: latents(size)[start:stop], _current_thread)
        return (await batcher.draw(job, asyncio.get_running_loop().time() + 30))[0]

    assert await thread() is not own
    for _ in range(4):  # most of which nothing else holds up
        await thread()
    assert await thread() is own
    assert own not in await asyncio.gather(thread(), thread(), thread())


async def test_one_run_that_was_held_up_makes_no_request_slow(
    make_batcher: Callable[..., Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the machine did once, the next request alone is drawn by the loop as before."""
    batcher = make_batcher()
    job = Job(batcher.model, 1, lambda start, stop: latents(1)[start:stop], _current_thread)

    async def thread() -> threading.Thread:
        return (await batcher.draw(job, asyncio.get_running_loop().time() + 30))[0]

    def wait_and_run(drawn: Latents) -> Images:
        time.sleep(0.2)
        return OnnxModel.run(batcher.model, drawn)

    for _ in range(5):
        await thread()
    with monkeypatch.context() as held_up:
        held_up.setattr(batcher.model, "run", wait_and_run)
        await thread()
    assert await thread() is threading.current_thread()


async def test_a_new_version_begins_with_no_pace(
    make_batcher: Callable[..., Batcher], tiny_model: Callable[..., Path]
) -> None:
    """What is known of the old one says nothing of it: its first request is drawn in a worker."""
    batcher = make_batcher()

    async def thread() -> threading.Thread:
        job = Job(batcher.model, 1, lambda start, stop: latents(1)[start:stop], _current_thread)
        return (await batcher.draw(job, asyncio.get_running_loop().time() + 30))[0]

    for _ in range(5):
        await thread()
    assert await thread() is threading.current_thread()
    batcher.model = OnnxModel(tiny_model(version="2", turns=SLOW))
    assert await thread() is not threading.current_thread()


async def test_a_slow_request_alone_leaves_the_loop_alone(make_batcher: Callable[..., Batcher]) -> None:
    """What takes long is drawn in a worker, whether others come or not."""
    batcher = make_batcher(turns=SLOW)
    for _ in range(2):
        job = Job(batcher.model, 1, lambda start, stop: latents(1)[start:stop], _current_thread)
        thread, _ = await batcher.draw(job, asyncio.get_running_loop().time() + 30)
        assert thread is not threading.current_thread()


def _current_thread(_: Latents, __: Images) -> threading.Thread:
    return threading.current_thread()
