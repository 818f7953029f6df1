"""An order says which latents are drawn, all at once or in any parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.engine.onnx_model import OnnxModel
from service.generation.orders import Order, Source, Walk


@pytest.fixture
def walk(tiny_model: Callable[..., Path]) -> Callable[[bool], Order]:
    """Return what orders a walk through three seeds, in steps of 3, with or without the way back."""
    model = OnnxModel(tiny_model())
    sources = tuple(Source(0, seed) for seed in range(3))

    def walk(loop: bool) -> Order:
        return Order(model, model.domains, sources, None, Walk(3, "slerp", loop), "json")

    return walk


@pytest.mark.parametrize(("loop", "times"), [(False, [0, 0.5, 1, 1.5, 2]), (True, [0, 0.5, 1, 1.5, 2, 2.5])])
def test_shared_key_frames_count_once(walk: Callable[[bool], Order], loop: bool, times: list[float]) -> None:
    """Three key frames in steps of 3 are 5 frames, or 6 with the way back, without the first again."""
    order = walk(loop)
    assert order.walk is not None
    assert [sum(order.walk.position(i)) for i in range(order.size)] == times


@pytest.mark.parametrize("loop", [False, True])
def test_a_walk_leads_through_its_key_frames(walk: Callable[[bool], Order], loop: bool) -> None:
    """Every second frame is a key frame, to the bit."""
    order = walk(loop)
    keyframes = np.stack([source.latent(order.model.metadata.prior, None) for source in order.sources])
    assert np.array_equal(order.latents(0, order.size)[::2][:3], keyframes)


def test_another_engine_is_another_key(
    walk: Callable[[bool], Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was drawn by another onnxruntime, or elsewhere, is not taken for the same bytes."""
    key = walk(True).key
    assert walk(True).key == key
    monkeypatch.setattr("onnxruntime.__version__", "0.0")
    assert walk(True).key != key


@pytest.mark.parametrize("part", [1, 2, 4])
def test_latents_do_not_depend_on_the_parts(walk: Callable[[bool], Order], part: int) -> None:
    """Whatever parts the latents are asked for in, they are the same."""
    order = walk(True)
    parts = [order.latents(i, min(i + part, order.size)) for i in range(0, order.size, part)]
    assert np.array_equal(np.concatenate(parts), order.latents(0, order.size))
