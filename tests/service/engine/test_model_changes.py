"""Models are added, replaced and removed while requests are answered, in every process alike."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.datastructures import State

from service.app import create_app
from service.engine.models import LOOK_EVERY_S, ControlState
from service.engine.onnx_model import OnnxModel
from service.errors import LoadRefused, UnknownModel
from service.settings import Settings
from tests.running import START
from tests.service.engine.test_models import served, unprivileged

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
SWAPS = 100
OpenApp = Callable[..., tuple[State, httpx.AsyncClient]]


@pytest.fixture
def open_app(models_dir: Path) -> OpenApp:
    """Return what opens an app; its arguments are the run folder that processes share, and settings."""

    def open_app(run_folder: Path | None = None, **settings: Any) -> tuple[State, httpx.AsyncClient]:
        chosen = Settings.model_validate({"models_dir": models_dir, "threads": 2, "processes": 1, **settings})
        app: FastAPI = create_app(chosen, run_folder)
        transport = httpx.ASGITransport(app)
        return app.state, httpx.AsyncClient(transport=transport, base_url="http://service")

    return open_app


async def info(client: httpx.AsyncClient) -> list[str]:
    """Return the lines of cogan_model_info and of the refused, without their values."""
    lines = (await client.get("/metrics")).text.splitlines()
    return [line for line in lines if line.startswith(("cogan_model_info", "cogan_models_refused"))]


async def refused(client: httpx.AsyncClient) -> dict[str, str]:
    """Return what /models says of refused files."""
    return {one["path"]: one["reason"] for one in (await client.get("/models")).json()["refused"]}


async def test_a_new_version_replaces_the_old(tiny_model: Callable[..., Path], open_app: OpenApp) -> None:
    """Responses, ETags, the card and the metrics are those of the new version, and of the old one no more."""
    tiny_model(version="1")
    state, client = open_app()
    old = await client.get("/generate?seed=1")
    tiny_model(("digit", "edge", "ink"), version="2")
    await state.loader.load("tiny")
    new = await client.get("/generate?seed=1", headers={"if-none-match": old.headers["etag"]})
    card = (await client.get("/models/tiny")).json()
    assert (new.status_code, new.json()["version"], card["version"]) == (200, "2", "2")
    assert new.json()["domains"] == ["digit", "edge", "ink"]
    assert new.json()["digest"] == card["digest"] != old.json()["digest"]
    labels = f'{{digest="{card["digest"]}",model="tiny",provider="cpu",version="2"}}'
    assert await info(client) == [f"cogan_model_info{labels} 1.0", "cogan_models_refused 0.0"]


@pytest.mark.parametrize("damage", ["empty", "half", "misplaced"])
async def test_a_broken_new_version_leaves_the_old_one(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """The reason is returned, listed, logged and counted; once the file is whole, it is served."""
    tiny_model(version="1")
    state, client = open_app()
    path = tiny_model(version="2")
    whole = path.read_bytes()
    broken = (models_dir / "tiny/1/model.onnx").read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "misplaced": broken}[damage])
    with pytest.raises(LoadRefused, match=r"^tiny/2/model.onnx: .+; version 1 is served$"):
        await state.loader.load("tiny")
    await state.loader.refresh()
    assert (await client.get("/generate?seed=1")).json()["version"] == "1"
    assert list(await refused(client)) == ["tiny/2/model.onnx"]
    assert "cogan_models_refused 1.0" in await info(client)
    assert "model refused: tiny/2/model.onnx" in caplog.text
    path.write_bytes(whole)
    await state.loader.refresh()
    assert (await client.get("/generate?seed=1")).json()["version"] == "2"
    assert await refused(client) == {}


async def test_the_folder_is_watched(tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp) -> None:
    """What is put into the folder is served soon and without a request, and what is taken out is not."""
    state, client = open_app()
    assert LOOK_EVERY_S <= 0.5  # so that it holds everywhere within a second
    watching = asyncio.create_task(state.loader.watch())

    async def wait_for(models: list[tuple[str, str]]) -> None:
        end = time.monotonic() + START
        while served(state.registry) != models and time.monotonic() < end:
            await asyncio.sleep(0.02)
        assert served(state.registry) == models

    tiny_model(version="1")
    await wait_for([("tiny", "1")])
    tiny_model(version="2")
    await wait_for([("tiny", "2")])
    (models_dir / "tiny").rename(models_dir.with_name("elsewhere"))
    await wait_for([])
    watching.cancel()
    assert "its files are gone" in (await client.get("/readyz")).json()["detail"]


async def test_what_does_not_change_is_not_loaded_again(
    tiny_model: Callable[..., Path], open_app: OpenApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that finds nothing new changes nothing, and a refused file is logged once."""
    tiny_model(name="ant")
    tiny_model(name="bee").write_bytes(b"junk")
    state, _ = open_app()
    kept, changes = state.registry.model("ant"), state.registry.changes
    for _ in range(3):
        await state.loader.refresh()
    assert (state.registry.model("ant"), state.registry.changes) == (kept, changes)
    assert caplog.text.count("model refused") == 1


async def test_a_folder_may_be_replaced(tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp) -> None:
    """Files that are gone at one look and back at the next leave the model served; gone twice, it is removed."""
    tiny_model()
    state, _ = open_app()
    elsewhere = models_dir.with_name("elsewhere")
    (models_dir / "tiny").rename(elsewhere)
    await state.loader.refresh()
    assert served(state.registry) == [("tiny", "1")]
    elsewhere.rename(models_dir / "tiny")
    await state.loader.refresh()
    (models_dir / "tiny").rename(elsewhere)
    await state.loader.refresh()
    assert served(state.registry) == [("tiny", "1")]
    await state.loader.refresh()
    assert served(state.registry) == []


async def test_a_lower_version_is_served_if_the_highest_is_taken_away(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp
) -> None:
    """Removing a version rolls back to the one below it."""
    tiny_model(version="1")
    path = tiny_model(version="2")
    state, _ = open_app()
    path.parent.rename(models_dir / "tiny/.2")
    await state.loader.refresh()
    assert served(state.registry) == [("tiny", "1")]


async def test_a_folder_that_is_being_written_is_ignored(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp
) -> None:
    """A version or a model whose folder begins with a dot is served once it is renamed."""
    tiny_model()
    state, client = open_app()
    for path, hidden in ((tiny_model(version="2"), "tiny/.2"), (tiny_model(name="new").parent, ".new")):
        path.parent.rename(models_dir / hidden)
    await state.loader.refresh()
    assert (served(state.registry), await refused(client)) == ([("tiny", "1")], {})
    (models_dir / "tiny/.2").rename(models_dir / "tiny/2")
    (models_dir / ".new").rename(models_dir / "new")
    await state.loader.refresh()
    assert served(state.registry) == [("new", "1"), ("tiny", "2")]


async def test_a_changed_permission_is_noticed(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version that may not be read is refused as such beside the old one, and served after a chmod."""
    tiny_model(version="1")
    monkeypatch.chdir(models_dir)
    state, client = open_app(models_dir=Path())
    path = tiny_model(version="2")
    path.chmod(0o0)
    with unprivileged():
        await state.loader.refresh()
    assert served(state.registry) == [("tiny", "1")]
    assert (await refused(client))["tiny/2/model.onnx"].startswith("Permission denied")
    path.chmod(0o644)
    await state.loader.refresh()
    assert (served(state.registry), await refused(client)) == ([("tiny", "2")], {})


async def test_a_missing_models_folder_removes_nothing(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp
) -> None:
    """An unmounted volume stops no model that is in memory, but it is listed, and it may come back."""
    tiny_model()
    state, client = open_app()
    models_dir.rename(models_dir.with_name("elsewhere"))
    for everything in (False, False, True):
        await state.loader.refresh(everything)
    assert (await client.get("/generate?seed=1")).status_code == 200
    assert "cannot be read: No such file" in (await refused(client))["."]
    with pytest.raises(LoadRefused, match=r"No such file.*version 1 is served"):
        await state.loader.load("tiny")
    models_dir.with_name("elsewhere").rename(models_dir)
    await state.loader.refresh()
    assert (await refused(client), served(state.registry)) == ({}, [("tiny", "1")])


async def test_a_folder_that_is_gone_is_no_longer_refused(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp
) -> None:
    """A broken model that was never served is forgotten with its folder."""
    tiny_model()
    broken = tiny_model(name="bee")
    broken.write_bytes(b"")
    _, client = app = open_app()
    assert "cogan_models_refused 1.0" in await info(client)
    broken.parent.parent.rename(models_dir.with_name("elsewhere"))
    await app[0].loader.refresh(everything=True)
    assert await refused(client) == {}
    assert "cogan_models_refused 0.0" in await info(client)


async def test_new_models_are_found(tiny_model: Callable[..., Path], open_app: OpenApp) -> None:
    """A service that started with nothing is ready once there is a model, and keeps what it has."""
    state, client = open_app()
    assert (await client.get("/readyz")).status_code == 503
    tiny_model(name="bee")
    await state.loader.refresh()
    kept = state.registry.model("bee")
    tiny_model(name="ant")
    await state.loader.refresh(everything=True)
    assert state.registry.model("bee") is kept
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/generate?seed=1")).json()["model"] == "ant"


async def test_unload_answers_what_was_accepted(
    tiny_model: Callable[..., Path], open_app: OpenApp, held: Callable[[], threading.Event]
) -> None:
    """Waiting requests are answered; later ones are refused, and without any model the service is not ready."""
    tiny_model()
    state, client = open_app(threads=1, max_batch=1)
    gate = held()
    accepted = [asyncio.create_task(client.get(f"/generate?seed={seed}")) for seed in range(4)]
    async with asyncio.timeout(START):
        while 'cogan_queue_depth{model="tiny"} 3.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0)
    await state.loader.unload("tiny")
    assert (await client.get("/generate?seed=1")).status_code == 503
    assert "unloaded" in (await client.get("/readyz")).json()["detail"]
    gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*accepted)] == [200] * 4
    text = (await client.get("/metrics")).text
    assert not [line for line in text.splitlines() if line.startswith(("cogan_model_info{", "cogan_queue_depth{"))]
    with pytest.raises(UnknownModel):
        await state.loader.unload("tiny")
    await state.loader.refresh(everything=True)
    assert served(state.registry) == []  # until it is loaded by request
    await state.loader.load("tiny")
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "..", ".", "", "tiny/1", "\0", "x" * 5000])
async def test_unknown_names_are_not_looked_for_in_the_folder(
    tiny_model: Callable[..., Path], open_app: OpenApp, name: str
) -> None:
    """A name is looked up among those of the folder, and leaves no trace if it is not one of them."""
    tiny_model()
    state, _ = open_app()
    with pytest.raises(UnknownModel):
        await state.loader.load(name)
    assert state.registry.errors == []


async def test_what_one_process_unloads_and_loads_all_do(
    tiny_model: Callable[..., Path], open_app: OpenApp, tmp_path: Path
) -> None:
    """After their next look, processes with the same state serve the same, and so does one that is started later."""
    tiny_model()
    tiny_model(name="other")
    (first, _), (second, _) = open_app(tmp_path), open_app(tmp_path)
    await first.loader.unload("other")
    await second.loader.refresh()
    third, _ = open_app(tmp_path)
    for state in (first, second, third):
        assert served(state.registry) == [("tiny", "1")]
    await second.loader.load("other")
    tiny_model(version="2")
    await second.loader.load("tiny")
    for state in (first, second, third):
        await state.loader.refresh()
        assert served(state.registry) == [("other", "1"), ("tiny", "2")]
    alone, _ = open_app()
    await alone.loader.unload("other")
    await first.loader.refresh()
    assert len(served(first.registry)) == 2  # another service is not affected


async def test_a_load_by_request_is_tried_again_in_every_process(
    tiny_model: Callable[..., Path], open_app: OpenApp, tmp_path: Path
) -> None:
    """A file that one process could not load, for lack of memory perhaps, is loaded there with the next request."""
    path = tiny_model()
    (first, _), (second, _) = open_app(tmp_path), open_app(tmp_path)
    second.registry.remove("tiny", "it could not be loaded")
    await second.loader.refresh()
    assert served(second.registry) == []  # its files are the same as at the last look
    await first.loader.load("tiny")
    await second.loader.refresh()
    assert served(second.registry) == served(first.registry) == [("tiny", "1")]
    assert path.exists()


def test_concurrent_changes_lose_nothing(tmp_path: Path) -> None:
    """Threads of several processes load and unload at once; every change is in the state afterwards."""
    file = tmp_path / "models.json"
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from service.engine.models import ControlState

file, own = Path(sys.argv[1]), sys.argv[2]

def change(thread):
    state = ControlState(file)
    for turn in range(20):
        state.record("shared", loaded=True)
        state.record(f"{own}-{thread}-{turn}", loaded=False)

with ThreadPoolExecutor(4) as threads:
    list(threads.map(change, range(4)))
"""
    command = [sys.executable, "-c", program, str(file)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b")]
    assert [process.wait(START) for process in processes] == [0, 0]
    expected = {f"{own}-{thread}-{turn}": -1 for own in "ab" for thread in range(4) for turn in range(20)}
    assert ControlState(file).read() == {"shared": 160} | expected


def test_a_state_is_never_read_in_half(tmp_path: Path) -> None:
    """While one process writes, another reads the state before or after the change."""
    state, done = ControlState(tmp_path / "models.json"), False

    def read() -> set[int]:
        seen = set()
        while not done:
            seen.add(len(ControlState(tmp_path / "models.json").read()))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for i in range(100):
            state.record(f"model_{i}", loaded=False)
        done = True
        assert reading.result() <= set(range(101))
    assert state.record("model_7", loaded=True) == state.read()["model_7"] == 2
    assert sum(number < 0 for number in state.read().values()) == 99


async def wait_until_only_those_are_left(state: State, opened: weakref.WeakSet[OnnxModel]) -> None:
    """Check that no model is kept but those that are served; a thread may hold one for a moment after its last run."""
    end = time.monotonic() + START
    gc.collect()
    while list(opened) != state.registry.models and time.monotonic() < end:
        await asyncio.sleep(0.02)
        gc.collect()
    assert list(opened) == state.registry.models


async def test_no_request_fails_or_is_mistaken_during_a_hundred_swaps(
    tiny_model: Callable[..., Path], models_dir: Path, open_app: OpenApp
) -> None:
    """Each response under load has the bytes of the model whose digest it and its ETag name."""
    models = {}
    for version in ("1", "2"):
        tiny_model(("digit", "edge", "ink")[: int(version) + 1], version=version)
        model = OnnxModel(models_dir / "tiny" / version / "model.onnx")
        models[model.digest] = model
    state, client = open_app(cache_bytes=0)
    done, answers = asyncio.Event(), []

    async def ask(worker: int) -> None:
        while not done.is_set():
            answers.append(await client.get(f"/generate?seed={worker}&count=4"))
            await asyncio.sleep(0.01)  # or the swaps would wait for a processor

    asking = [asyncio.create_task(ask(worker)) for worker in range(4)]
    opened: weakref.WeakSet[OnnxModel] = weakref.WeakSet()
    places = [models_dir / "tiny/2", models_dir / "tiny/.2"]
    for _ in range(SWAPS):
        places[0].rename(places[1])
        places.reverse()
        await state.loader.load("tiny")
        opened.add(state.registry.model("tiny"))
    done.set()
    await asyncio.gather(*asking)
    await wait_until_only_those_are_left(state, opened)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["digest"] for answer in answers}) == len(models)
    bodies: dict[tuple[str, str], set[tuple[str, bytes]]] = {}
    for answer in answers:
        body = answer.json()
        assert tuple(body["domains"]) == models[body["digest"]].domains
        found = (answer.headers["etag"], answer.content)
        bodies.setdefault((body["digest"], str(answer.url)), set()).add(found)
    assert all(len(same) == 1 for same in bodies.values())
    assert len({etag for same in bodies.values() for etag, _ in same}) == len(bodies)
