"""Models come, change and go while requests are answered, and no request notices."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.datastructures import State

from service.app import create_app
from service.engine.onnx_model import OnnxModel
from service.errors import LoadRefused, UnknownModel
from service.settings import Settings

pytestmark = pytest.mark.anyio
SWAPS = 100


@pytest.fixture
def open_app(models_dir: Path) -> Callable[..., tuple[State, httpx.AsyncClient]]:
    """Return what opens an app; its arguments are settings."""

    def open_app(**settings: Any) -> tuple[State, httpx.AsyncClient]:
        app: FastAPI = create_app(Settings(models_dir=models_dir, **({"threads": 2} | settings)))
        transport = httpx.ASGITransport(app)
        return app.state, httpx.AsyncClient(transport=transport, base_url="http://service")

    return open_app


async def info(client: httpx.AsyncClient) -> list[str]:
    """Return the lines of cogan_model_info and of the refused, without their values."""
    lines = (await client.get("/metrics")).text.splitlines()
    return [line for line in lines if line.startswith(("cogan_model_info", "cogan_models_refused"))]


async def test_a_new_version_takes_the_place_of_the_old(
    tiny_model: Callable[..., Path], open_app: Callable[..., tuple[State, httpx.AsyncClient]]
) -> None:
    """Answers, ETags, the card and the metrics are those of the new version, and of the old one no more."""
    tiny_model(version="1")
    state, client = open_app()
    old = await client.get("/generate?seed=1")
    tiny_model(("digit", "edge", "ink"), version="2")
    await state.changes.load("tiny")
    new = await client.get("/generate?seed=1", headers={"if-none-match": old.headers["etag"]})
    card = (await client.get("/models/tiny")).json()
    assert (new.status_code, new.json()["version"], card["version"]) == (200, "2", "2")
    assert new.json()["domains"] == ["digit", "edge", "ink"]
    assert new.json()["digest"] == card["digest"] != old.json()["digest"]
    labels = f'{{digest="{card["digest"]}",model="tiny",provider="cpu",version="2"}}'
    assert await info(client) == [f"cogan_model_info{labels} 1.0", "cogan_models_refused 0.0"]


@pytest.mark.parametrize("damage", ["empty", "half", "misplaced"])
async def test_a_broken_new_version_leaves_the_old_one(
    tiny_model: Callable[..., Path],
    models_dir: Path,
    open_app: Callable[..., tuple[State, httpx.AsyncClient]],
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """Why it is refused is answered, listed, logged and counted; once it is whole, it is served."""
    tiny_model(version="1")
    state, client = open_app()
    path = tiny_model(version="2")
    whole = path.read_bytes()
    broken = (models_dir / "tiny/1/model.onnx").read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "misplaced": broken}[damage])
    with pytest.raises(LoadRefused, match=r"^tiny/2/model.onnx: .+; version 1 is served$"):
        await state.changes.load("tiny")
    await state.changes.reload()
    assert (await client.get("/generate?seed=1")).json()["version"] == "1"
    assert [one["path"] for one in (await client.get("/models")).json()["refused"]] == ["tiny/2/model.onnx"]
    assert "cogan_models_refused 1.0" in await info(client)
    assert "model refused: tiny/2/model.onnx" in caplog.text
    path.write_bytes(whole)
    await state.changes.reload()
    assert (await client.get("/generate?seed=1")).json()["version"] == "2"
    assert (await client.get("/models")).json()["refused"] == []


async def test_a_vanished_folder_takes_nothing_away(
    tiny_model: Callable[..., Path],
    models_dir: Path,
    open_app: Callable[..., tuple[State, httpx.AsyncClient]],
) -> None:
    """An unmounted volume stops no model that is in memory, but an operator sees it."""
    tiny_model()
    state, client = open_app()
    models_dir.rename(models_dir.with_name("elsewhere"))
    await state.changes.reload()
    assert (await client.get("/generate?seed=1")).status_code == 200
    assert "any more" in (await client.get("/models")).json()["refused"][0]["reason"]
    with pytest.raises(LoadRefused, match="version 1 is served"):
        await state.changes.load("tiny")


async def test_what_is_gone_is_refused_no_more(
    tiny_model: Callable[..., Path],
    models_dir: Path,
    open_app: Callable[..., tuple[State, httpx.AsyncClient]],
) -> None:
    """A broken model that was never served is forgotten with its folder."""
    tiny_model()
    broken = tiny_model(name="bee")
    broken.write_bytes(b"")
    state, client = open_app()
    assert "cogan_models_refused 1.0" in await info(client)
    broken.parent.parent.rename(models_dir.with_name("elsewhere"))
    await state.changes.reload()
    assert (await client.get("/models")).json()["refused"] == []
    assert "cogan_models_refused 0.0" in await info(client)


async def test_reload_finds_new_models(
    tiny_model: Callable[..., Path], open_app: Callable[..., tuple[State, httpx.AsyncClient]]
) -> None:
    """A service that started with nothing is ready once there is a model, and keeps what it has."""
    state, client = open_app()
    assert (await client.get("/readyz")).status_code == 503
    tiny_model(name="bee")
    await state.changes.reload()
    kept = state.registry.model("bee")
    tiny_model(name="ant")
    await state.changes.reload()
    assert state.registry.model("bee") is kept
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/generate?seed=1")).json()["model"] == "ant"


async def test_unload_answers_what_was_accepted(
    tiny_model: Callable[..., Path], open_app: Callable[..., tuple[State, httpx.AsyncClient]]
) -> None:
    """What waits is drawn; what comes then is refused, and without any model the service is not ready."""
    tiny_model(turns=100_000)
    state, client = open_app(threads=1, max_batch=1)
    accepted = [asyncio.create_task(client.get(f"/generate?seed={seed}")) for seed in range(4)]
    while (await client.get("/metrics")).text.find('cogan_queue_depth{model="tiny"} 3.0') < 0:
        await asyncio.sleep(0)
    await state.changes.unload("tiny")
    assert (await client.get("/generate?seed=1")).status_code == 503
    assert "unloaded" in (await client.get("/readyz")).json()["detail"]
    assert [answer.status_code for answer in await asyncio.gather(*accepted)] == [200] * 4
    assert 'model="tiny",provider' not in "".join(await info(client))
    with pytest.raises(UnknownModel):
        await state.changes.unload("tiny")
    await state.changes.load("tiny")
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "..", ".", "", "tiny/1", "\0", "x" * 5000])
async def test_unknown_names_are_not_looked_for_in_the_folder(
    tiny_model: Callable[..., Path],
    open_app: Callable[..., tuple[State, httpx.AsyncClient]],
    name: str,
) -> None:
    """A name is looked up among those of the folder, and leaves no trace where it is none."""
    tiny_model()
    state, _ = open_app()
    with pytest.raises(UnknownModel):
        await state.changes.load(name)
    assert state.registry.refused == []


async def test_no_request_fails_or_is_mistaken_during_a_hundred_swaps(
    tiny_model: Callable[..., Path],
    models_dir: Path,
    open_app: Callable[..., tuple[State, httpx.AsyncClient]],
) -> None:
    """Each answer under load has the bytes of the model whose digest it and its ETag name."""
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
        await state.changes.load("tiny")
        opened.add(state.registry.model("tiny"))
    done.set()
    await asyncio.gather(*asking)
    gc.collect()
    assert list(opened) == state.registry.models  # no old one is kept
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["digest"] for answer in answers}) == len(models)
    told: dict[tuple[str, str], set[tuple[str, bytes]]] = {}
    for answer in answers:
        body = answer.json()
        assert tuple(body["domains"]) == models[body["digest"]].domains
        told.setdefault((body["digest"], str(answer.url)), set()).add(
            (answer.headers["etag"], answer.content)
        )
    assert all(len(same) == 1 for same in told.values())
    assert len({etag for same in told.values() for etag, _ in same}) == len(told)
