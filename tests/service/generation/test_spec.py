"""A spec says which latents are computed, all at once or in any parts, and has a key for its response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engine.onnx_model import OnnxModel
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.latents import draw_latent
from service.metadata import LATENT


@pytest.fixture
def path(tiny_model: Callable[..., Path]) -> Callable[[bool], GenerationSpec]:
    """Return what makes a path through three seeds, in steps of 3, with or without the way back."""
    model = OnnxModel(tiny_model())
    latents = tuple(LatentSpec(0, seed) for seed in range(3))

    def path(loop: bool) -> GenerationSpec:
        return GenerationSpec(model, model.domains, latents, None, InterpolationPath(3, "slerp", loop), "json")

    return path


@pytest.mark.parametrize(("loop", "times"), [(False, [0, 0.5, 1, 1.5, 2]), (True, [0, 0.5, 1, 1.5, 2, 2.5])])
def test_shared_key_frames_count_once(path: Callable[[bool], GenerationSpec], loop: bool, times: list[float]) -> None:
    """Three key frames in steps of 3 are 5 frames, or 6 with the way back, without the first again."""
    spec = path(loop)
    assert spec.path is not None
    assert [sum(spec.path.position(i)) for i in range(spec.size)] == times


@pytest.mark.parametrize("loop", [False, True])
def test_a_path_leads_through_its_key_frames(path: Callable[[bool], GenerationSpec], loop: bool) -> None:
    """Every second frame is a key frame, to the bit."""
    spec = path(loop)
    keyframes = np.stack([latent.latent(spec.model.prior, None) for latent in spec.latents])
    assert np.array_equal(spec.inputs(0, spec.size)[LATENT][::2][:3], keyframes)


def test_latents_come_from_seeds_and_from_values(path: Callable[[bool], GenerationSpec]) -> None:
    """A seed with its index, and values as they were given, in the order of the request."""
    model = path(False).model
    latents = (LatentSpec(2, 7), LatentSpec(1, values=(0.5,) * 8))
    found = GenerationSpec(model, model.domains, latents, 0.5, None, "png").inputs(0, 2)[LATENT]
    assert np.array_equal(found[0], draw_latent(model.prior, 7, 2, 0.5))
    assert found[1].tolist() == [0.5] * 8


def test_pixels_are_those_of_the_requested_domains(path: Callable[[bool], GenerationSpec]) -> None:
    """The size of a response is frames x the areas of its domains."""
    spec = path(False)
    assert (spec.size, spec.pixels) == (5, 5 * (8 * 6 + 10 * 9))
    edge = replace(spec, domains=("edge",))
    assert ([domain.name for domain in edge.shapes], edge.pixels) == (["edge"], 5 * 10 * 9)


def test_everything_that_changes_the_bytes_changes_the_key(path: Callable[[bool], GenerationSpec]) -> None:
    """Domains and their order, latents, truncation, path and format each make another response."""
    spec = path(True)
    others = [
        path(False),
        replace(spec, domains=("edge", "digit")),
        replace(spec, domains=("edge",)),
        replace(spec, latents=spec.latents[:2]),
        replace(spec, latents=(LatentSpec(1, 0), *spec.latents[1:])),
        replace(spec, truncation=0.5),
        replace(spec, path=InterpolationPath(3, "lerp", True)),
        replace(spec, format="gif"),
    ]
    assert path(True).key == spec.key
    assert len({spec.key, *(other.key for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("name", ["onnxruntime.__version__", "service.generation.spec.ENCODER_ID"])
def test_another_engine_or_encoder_is_another_key(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What another onnxruntime computed, or another encoder wrote, is not taken for the same bytes."""
    file = tiny_model()

    def key() -> str:
        model = OnnxModel(file)
        return GenerationSpec(model, model.domains, (LatentSpec(0, 1),), None, None, "json").key

    before = key()
    assert key() == before
    monkeypatch.setattr(name, "0.0")
    assert key() != before


@pytest.mark.parametrize("part", [1, 2, 4])
def test_latents_do_not_depend_on_the_parts(path: Callable[[bool], GenerationSpec], part: int) -> None:
    """Whatever parts the latents are computed in, they are the same."""
    spec = path(True)
    parts = [spec.inputs(i, min(i + part, spec.size))[LATENT] for i in range(0, spec.size, part)]
    assert np.array_equal(np.concatenate(parts), spec.inputs(0, spec.size)[LATENT])
