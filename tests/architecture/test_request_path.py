"""Following one request through the service takes few files."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

import service
import service.metadata
from tests.running import listening

SERVICE = Path(service.__file__).parent
MAX_FILES = 20


class Entered:
    """The files of the service whose functions are called in any thread, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.files = set[str]()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call."""
        file = Path(frame.f_code.co_filename)
        if self.on and event == "call" and file.is_relative_to(SERVICE):
            self.files.add(str(file.relative_to(SERVICE)))


@contextmanager
def profiled(note: Entered) -> Iterator[None]:
    """Call `note` for every call of this thread and of those that are started meanwhile."""
    before = sys.getprofile(), threading.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])


def test_a_request_enters_few_files(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """One uncached POST /generate, from its bytes to those of the response, runs code of at most 20 files."""
    tiny_model()
    entered = Entered()

    async def ask() -> None:
        async with listening(models_dir) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            (await client.get("/readyz")).raise_for_status()
            entered.on = True
            (await client.post("/generate", json={"seed": 1})).raise_for_status()
            entered.on = False

    with profiled(entered):
        asyncio.run(ask())
    parts = {"http/protocol.py", "api/generate.py", "engine/batcher.py", "engine/onnx_model.py", "generation/images.py"}
    assert parts <= entered.files
    assert len(entered.files) <= MAX_FILES, "\n".join(sorted(entered.files))


def test_calls_of_other_threads_are_counted() -> None:
    """The test above can fail: it sees what worker threads enter, too."""
    entered = Entered()
    entered.on = True
    with profiled(entered):
        thread = threading.Thread(target=service.metadata.graph_digest, args=(b"",))
        thread.start()
        thread.join()
    assert entered.files == {"metadata.py"}
