"""What a request would cost is checked before any work starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.errors import InvalidRequest, TooLarge, UnknownModel
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from service.generation.generator import Generator, formats
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.settings import Settings
from service.telemetry.metrics import Metrics

AREA = 8 * 6 + 10 * 9  # of both domains of a tiny model
STILL, WALK = None, InterpolationPath(5, "slerp", False)  # of two key frames: 5 frames


@pytest.fixture
def make_spec(tiny_model: Callable[..., Path], models_dir: Path) -> Callable[..., GenerationSpec]:
    """Return what makes specs within a limit in pixels."""
    tiny_model()
    tiny_model(name="ant", kind="classifier")
    registry = create_app(Settings(models_dir=models_dir, threads=1, processes=1)).state.registry

    def make(max_pixels: int = 2**25, **changes: Any) -> GenerationSpec:
        generator = Generator(registry, max_pixels, Metrics())
        fields: dict[str, Any] = {
            "domains": None,
            "latents": [LatentSpec(0, 1), LatentSpec(0, 2)],
            "truncation": None,
            "path": WALK,
            "format_": "json",
            "place": "body",
        }
        return generator.spec(generator.model(None, "body"), **(fields | changes))

    return make


@pytest.mark.parametrize(
    ("path", "name", "frames", "weight"),
    [
        (STILL, "json", 2, 1),
        (STILL, "png", 2, 1),
        (STILL, "webp", 2, 2),
        (STILL, "zip", 2, 1),
        (STILL, "npz", 2, 1),
        (WALK, "json", 5, 1),
        (WALK, "gif", 5, 8),
        (WALK, "webp", 5, 2),
        (WALK, "png", 5, 1),
    ],
)
def test_the_cost_is_pixels_by_frames_by_domains_by_format(
    make_spec: Callable[..., GenerationSpec], path: InterpolationPath | None, name: str, frames: int, weight: int
) -> None:
    """Up to the limit a response is accepted, above it it is not."""
    cost = frames * AREA * weight
    assert make_spec(cost, path=path, format_=name).size == frames
    with pytest.raises(TooLarge, match=f"at most {cost - 1} pixels"):
        make_spec(cost - 1, path=path, format_=name)
    assert make_spec(frames * 48 * weight, path=path, format_=name, domains=["digit"]).pixels == frames * 48


def test_too_large_a_response_names_the_bound_and_cheaper_formats(make_spec: Callable[..., GenerationSpec]) -> None:
    """A client learns what is left: other formats that fit, or fewer images if none does."""
    with pytest.raises(TooLarge) as caught:
        make_spec(5 * AREA * 2, format_="gif")
    assert f"at most {5 * AREA * 2} pixels" in caught.value.detail
    assert f"would have {5 * AREA}, each of which counts as 8 in gif" in caught.value.detail
    assert caught.value.errors[0].allowed == ["json", "webp", "png", "zip", "npz"]
    assert "(json, webp, png, zip, npz)" in caught.value.detail
    with pytest.raises(TooLarge, match="or fewer domains") as caught:
        make_spec(100)
    assert caught.value.errors[0].allowed == "fewer images"


@pytest.mark.parametrize(("path", "name"), [(STILL, "webp"), (WALK, "gif"), (WALK, "webp")])
def test_a_format_that_has_no_room_is_named(
    make_spec: Callable[..., GenerationSpec], monkeypatch: pytest.MonkeyPatch, path: InterpolationPath | None, name: str
) -> None:
    """A sheet is as high as all its rows, an animation as high as one; formats without a bound are offered."""
    known = PAIR_FORMATS if path is None else FRAME_FORMATS
    side = 20 if path is None else 15
    for bound, fits in ((side, True), (side - 1, False)):
        monkeypatch.setitem(known, name, known[name].__class__(known[name].media_type, known[name].encode, bound))
        if fits:
            assert make_spec(path=path, format_=name).format == name
        else:
            with pytest.raises(TooLarge, match=f"{name} has at most {bound} pixels a side.*{side}") as caught:
                make_spec(path=path, format_=name)
            assert "png" in caught.value.errors[0].allowed


def test_formats_are_those_of_pairs_or_frames(make_spec: Callable[..., GenerationSpec]) -> None:
    """Pairs have no GIF."""
    assert formats(make_spec(path=None)) is PAIR_FORMATS
    assert formats(make_spec()) is FRAME_FORMATS
    assert "gif" not in PAIR_FORMATS


@pytest.mark.parametrize(("path", "pointer"), [(STILL, "/latents/1"), (WALK, "/keyframes/1/latent")])
def test_latents_have_the_models_size(
    make_spec: Callable[..., GenerationSpec], path: InterpolationPath | None, pointer: str
) -> None:
    """One of another size is pointed at."""
    given = [LatentSpec(0, values=(0.0,) * 8), LatentSpec(1, values=(0.0,) * 7)]
    with pytest.raises(InvalidRequest, match="a latent of model 'tiny' has 8 values") as caught:
        make_spec(path=path, latents=given)
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_domains_are_known_and_named_once(make_spec: Callable[..., GenerationSpec]) -> None:
    """They keep the order of the request; without any, all of the model's are generated."""
    assert make_spec().domains == ("digit", "edge")
    assert make_spec(domains=["edge", "digit"]).domains == ("edge", "digit")
    for domains, pointer in ((["edge", "dog"], "/domains/1"), (["edge", "edge"], "/domains/1")):
        with pytest.raises(InvalidRequest, match="are digit, edge, each at most once") as caught:
            make_spec(domains=domains)
        assert [error.pointer for error in caught.value.errors] == [pointer]


def test_only_generators_generate(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """A classifier is served, but not for images."""
    tiny_model()
    tiny_model(name="ant", kind="classifier")
    registry = create_app(Settings(models_dir=models_dir, threads=1, processes=1)).state.registry
    with pytest.raises(UnknownModel, match="this needs a generator"):
        Generator(registry, 1, Metrics()).model("ant", "query")


@pytest.mark.anyio
async def test_nothing_is_computed_of_what_is_too_large(make_spec: Callable[..., GenerationSpec]) -> None:
    """The check comes before the queue: no run of the model is counted."""
    spec = make_spec()
    before = spec.model.latency.row_s
    with pytest.raises(TooLarge):
        make_spec(100)
    await asyncio.sleep(0.05)
    assert spec.model.latency.row_s == before == 0.0
