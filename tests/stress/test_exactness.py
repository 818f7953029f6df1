"""The same request has the same bytes: alone, in any company, on any threads, in any process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.engine.onnx_model import OnnxModel
from service.settings import Settings
from tests.running import Service
from tests.stress.forms import forms
from tests.stress.gauges import parse
from tests.stress.load import ROOT, Template
from tests.stress.mixture import GOOD
from tests.stress.questions import Question, questions

Answered = tuple[int, str | None, str | None, bytes]  # status, media type, ETag, body
ARMS = [{"threads": 2, "max_batch": 16}, {"threads": 1, "max_batch": 64}, {"threads": 2, "max_batch": 3}]


def open_app(models_dir: Path, threads: int, max_batch: int) -> httpx.AsyncClient:
    """Open an app that keeps no answer."""
    app = create_app(Settings(models_dir=models_dir, threads=threads, max_batch=max_batch, cache_bytes=0))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


async def ask(client: httpx.AsyncClient, question: Question) -> Answered:
    """Ask one question; return all of its answer that is promised to be the same."""
    method, path, choice = question
    if method == "GET":
        answer = await client.get(path, params=choice)
    else:
        answer = await client.post(path, json=choice)
    return answer.status_code, answer.headers["content-type"], answer.headers.get("etag"), answer.content


async def runs(client: httpx.AsyncClient) -> tuple[float, float]:
    """Read how many runs an app made, and of how many latents."""
    found = parse((await client.get("/metrics")).text)
    return found["cogan_batches_total"], found["cogan_samples_total"]


def check_mixtures(runner: asyncio.Runner, models_dir: Path, model: Path, examples: int, most: int) -> None:
    """Ask mixtures at once, and each of their questions alone on an app of one thread and runs of one."""
    alone = open_app(models_dir, threads=1, max_batch=1)
    apps = [open_app(models_dir, **arm) for arm in ARMS]
    mixtures = st.lists(questions(OnnxModel(model).metadata, most), min_size=6, max_size=12)

    async def compare(app: httpx.AsyncClient, mixture: list[Question]) -> None:
        together = await asyncio.gather(*(ask(app, question) for question in mixture))
        for question, answered in zip(mixture, together, strict=True):
            assert answered[0] == 200, (question, answered)
            assert answered == await ask(alone, question), question

    new = [Phase.generate]  # a mixture cannot be shrunk: whose bytes are wrong depends on the moment

    @settings(max_examples=examples, deadline=None, phases=new, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(apps), mixtures)
    def compare_all(app: httpx.AsyncClient, mixture: list[Question]) -> None:
        runner.run(compare(app, mixture))

    compare_all()
    for app in (apps[0], alone):
        batches, samples = runner.run(runs(app))
        assert (batches == samples) == (app is alone), (batches, samples)


@pytest.mark.parametrize(("examples", "most"), forms((20, 8), (1500, 24)))
def test_company_changes_no_byte(tiny_model: Callable[..., Path], examples: int, most: int) -> None:
    """Random requests that come together are joined in runs, and each gets what it gets alone."""
    path = tiny_model(("digit", "edge", "ink"))
    with asyncio.Runner() as runner:
        check_mixtures(runner, path.parents[2], path, examples, most)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_company_changes_no_byte_of_the_committed_models() -> None:
    """The same of convolutions, which compute a batch in other ways than one image."""
    paths = sorted((ROOT / "models").glob("*/*/model.onnx"))
    generators = [path for path in paths if OnnxModel(path).metadata.kind == "generator"]
    assert generators
    with asyncio.Runner() as runner:
        for path in generators:
            check_mixtures(runner, ROOT / "models", path, examples=100, most=24)


def ask_process(service: Service, templates: Iterable[Template]) -> list[bytes]:
    """Ask a process questions of a fixed seed, several at once."""
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as client, ThreadPoolExecutor(8) as pool:

        def ask_one(template: Template) -> bytes:
            method, path, body = (part.replace("%d", "7") for part in template)
            answer = client.request(method, path, content=body)
            assert answer.status_code == 200, answer.text
            return answer.content

        return list(pool.map(ask_one, templates))


def test_replicas_and_restarts_answer_alike(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """Processes side by side and one after another have the same bytes, however they are set up."""
    tiny_model()
    first = start(threads=1, max_batch=1)
    before = ask_process(first, GOOD)
    assert ask_process(start(threads=2), GOOD[::-1])[::-1] == before
    first.stop()
    assert ask_process(start(threads=1, max_batch=1), GOOD) == before
