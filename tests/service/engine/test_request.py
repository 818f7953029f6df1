"""A request collects its rows from several runs, and is encoded step by step."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.batcher import BatchSlice, Encoding, Entry
from service.engine.onnx_model import Arrays, OnnxModel
from service.metadata import LATENT
from tests.service.engine.conftest import latents, make_job, outputs_alone

pytestmark = pytest.mark.anyio


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> OnnxModel:
    """Return a tiny generator."""
    return OnnxModel(tiny_model())


def compute(entry: Entry[Any], start: int, stop: int) -> bool:
    """Run some rows of an entry and store the outputs; return whether they were the last."""
    inputs = entry.job.inputs(start, stop)
    return entry.add(start, stop, inputs, entry.job.model.run(inputs))


def counted(steps: int, seen: list[str]) -> Callable[[Arrays, Arrays], Encoding[int]]:
    """Return an encoder that notes its steps and its end."""

    def encode(_: Arrays, __: Arrays) -> Encoding[int]:
        try:
            for _step in range(steps):
                seen.append("step")
                yield
            return steps
        finally:
            seen.append("end")

    return encode


async def test_rows_are_joined_in_their_order(model: OnnxModel) -> None:
    """Whichever run ends first, inputs and outputs are encoded in the order of the request."""
    entry = Entry(make_job(model, latents(5), lambda inputs, outputs: iter_pair(inputs, outputs)))
    assert [compute(entry, 3, 5), compute(entry, 0, 1), compute(entry, 1, 3)] == [False, False, True]
    assert entry.encode(math.inf)
    entry.settle()
    inputs, outputs = await entry.done
    expected = model.run({LATENT: latents(5)})
    assert np.array_equal(inputs[LATENT], latents(5))
    assert all(np.array_equal(outputs[name], expected[name]) for name in model.domains)


def iter_pair(inputs: Arrays, outputs: Arrays) -> Encoding[tuple[Arrays, Arrays]]:
    """Return inputs and outputs."""
    yield
    return inputs, outputs


async def test_encoding_goes_on_after_a_pause(model: OnnxModel) -> None:
    """Encoding until a moment that has passed does one step at a time; the last one gives the result."""
    seen = list[str]()
    entry = Entry(make_job(model, latents(1), counted(3, seen)))
    compute(entry, 0, 1)
    assert [entry.encode(0.0) for _ in range(4)] == [False, False, False, True]
    entry.settle()
    assert (await entry.done, seen) == (3, ["step"] * 3 + ["end"])
    assert set(entry.seconds()) == {"queue", "run", "encode"}


@pytest.mark.parametrize("ended", ["late", "cancelled"])
async def test_encoding_stops_if_nobody_waits(model: OnnxModel, ended: str) -> None:
    """After a deadline or a cancellation no further step is done, and the encoder is closed."""
    seen = list[str]()
    entry = Entry(make_job(model, latents(1), counted(100, seen)))
    compute(entry, 0, 1)
    assert not entry.encode(0.0)
    if ended == "late":
        entry.done.set_exception(TimeoutError())
    else:
        entry.done.cancel()
    assert entry.encode(math.inf)
    entry.settle()
    assert seen == ["step", "end"]
    assert entry.done.cancelled() or isinstance(entry.done.exception(), TimeoutError)


async def test_encoding_that_nobody_waits_for_does_not_begin(model: OnnxModel) -> None:
    """A request that was cancelled during its run costs no encoding."""
    seen = list[str]()
    entry = Entry(make_job(model, latents(1), counted(100, seen)))
    compute(entry, 0, 1)
    entry.done.cancel()
    assert entry.encode(math.inf)
    assert seen == []


async def test_a_failed_request_is_not_encoded(model: OnnxModel) -> None:
    """The error of a run is the outcome."""
    seen = list[str]()
    entry = Entry(make_job(model, latents(1), counted(1, seen)))
    entry.fail(ValueError("poison"))
    assert entry.encode(math.inf)
    entry.settle()
    with pytest.raises(ValueError, match="poison"):
        await entry.done
    assert seen == []


async def test_only_the_first_outcome_counts(model: OnnxModel) -> None:
    """A result after the deadline changes nothing."""
    entry = Entry(make_job(model, latents(1), outputs_alone))
    compute(entry, 0, 1)
    entry.encode(math.inf)
    entry.settle()
    assert entry.done.exception() is None
    late = Entry(make_job(model, latents(1), outputs_alone))
    late.done.set_exception(TimeoutError())
    compute(late, 0, 1)
    late.encode(math.inf)
    late.settle()
    with pytest.raises(TimeoutError):
        await late.done


async def test_a_job_knows_its_pixels(tiny_model: Callable[..., Path]) -> None:
    """They are those of all domains, whether the images are a model's outputs or its inputs."""
    for kind, pixels in (("generator", 8 * 6 + 10 * 9), ("encoder", 8 * 6 + 10 * 9), ("classifier", 8 * 6)):
        model = OnnxModel(tiny_model(name=kind, kind=kind))
        rows = {t.name: np.zeros((3, *t.shape)) for t in model.inputs}
        assert make_job(model, rows).pixels == 3 * pixels


async def test_a_slice_has_the_rows_between_its_ends(model: OnnxModel) -> None:
    """Rows that are given to a batch no longer wait."""
    entry = Entry(make_job(model, latents(5)))
    part = BatchSlice(entry, 0, 3)
    entry.taken = part.stop
    assert (part.rows, entry.waiting) == (3, 2)
    await asyncio.sleep(0)
