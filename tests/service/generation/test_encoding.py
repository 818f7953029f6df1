"""Every format has the generated images, in the order of the request, and is written image by image."""

from __future__ import annotations

import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.engine.onnx_model import OnnxModel
from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from service.generation.pairs import GeneratedImages
from service.generation.spec import GenerationSpec, InterpolationPath, LatentSpec
from service.metadata import LATENT
from tests.service.generation.conftest import complete

SEEDS = (LatentSpec(0, 7), LatentSpec(1, 7), LatentSpec(0, 7), LatentSpec(0, 9), LatentSpec(0, 7))
FORMATS = [(FRAME_FORMATS, name) for name in FRAME_FORMATS] + [(PAIR_FORMATS, name) for name in PAIR_FORMATS]


@pytest.fixture
def pairs(tiny_model: Callable[..., Path]) -> GenerationSpec:
    """Return a spec of five pairs, three of which are of the same seed and index."""
    model = OnnxModel(tiny_model())
    return GenerationSpec(model, model.domains, SEEDS, None, None, "json")


@pytest.fixture
def frames(pairs: GenerationSpec) -> GenerationSpec:
    """Return a spec of seven frames, of which the first, fourth and last are key frames."""
    return replace(pairs, latents=SEEDS[1:4], path=InterpolationPath(4, "lerp", False))


def generate(spec: GenerationSpec) -> GeneratedImages:
    """Run the model of a spec."""
    inputs = spec.inputs(0, spec.size)
    outputs = spec.model.run(inputs)
    return GeneratedImages(spec, inputs, {name: outputs[name] for name in spec.domains})


def read_png(content: bytes) -> np.ndarray[Any, Any]:
    """Read a PNG [H, W, C]."""
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize("domains", [("digit", "edge"), ("edge",)])
def test_json_has_every_image_with_its_origin(pairs: GenerationSpec, domains: tuple[str, ...]) -> None:
    """Model, digest, and for each pair its seed, index and one PNG of each requested domain."""
    generated = generate(replace(pairs, domains=domains))
    body = json.loads(complete(PAIR_FORMATS["json"].encode(generated)))
    assert (body["model"], body["version"], body["digest"]) == ("tiny", "1", pairs.model.digest)
    assert body["domains"] == list(domains)
    assert [(pair["seed"], pair["index"]) for pair in body["pairs"]] == [(one.seed, one.index) for one in SEEDS]
    for i, pair in enumerate(body["pairs"]):
        assert list(pair["images"]) == list(domains)
        for name, address in pair["images"].items():
            start, _, text = address.partition(",")
            assert start == "data:image/png;base64"
            assert np.array_equal(read_png(b64decode(text)), generated.images[name][i])


def test_json_of_given_latents_has_no_seed(pairs: GenerationSpec) -> None:
    """A latent that was sent is known by its place."""
    given = replace(pairs, latents=(LatentSpec(0, values=(0.0,) * 8), LatentSpec(1, values=(1.0,) * 8)))
    body = json.loads(complete(PAIR_FORMATS["json"].encode(generate(given))))
    assert [(pair["index"], "seed" in pair) for pair in body["pairs"]] == [(0, False), (1, False)]


def test_json_of_frames_has_their_times(frames: GenerationSpec) -> None:
    """The second key frame is at 1.0."""
    body = json.loads(complete(FRAME_FORMATS["json"].encode(generate(frames))))
    assert [frame["t"] for frame in body["frames"]] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])


def test_a_zip_keeps_repeated_seeds(pairs: GenerationSpec) -> None:
    """Every pair of the request has a folder of its own, and the images that were generated for it."""
    generated = generate(pairs)
    with zipfile.ZipFile(io.BytesIO(complete(PAIR_FORMATS["zip"].encode(generated)))) as archive:
        names = archive.namelist()
        content = {name: archive.read(name) for name in names}
    assert len(set(names)) == len(names) == 10
    folders = [name.partition("/")[0] for name in names[::2]]
    assert folders == ["7-0", "7-1", "7-0-again1", "9-0", "7-0-again2"]
    for i, folder in enumerate(folders):
        for domain in pairs.domains:
            assert np.array_equal(read_png(content[f"{folder}/{domain}.png"]), generated.images[domain][i])


def test_a_zip_of_frames_is_in_order(frames: GenerationSpec) -> None:
    """Frames are numbered, so that their names sort."""
    with zipfile.ZipFile(io.BytesIO(complete(FRAME_FORMATS["zip"].encode(generate(frames))))) as archive:
        assert archive.namelist()[::2] == [f"{i:05d}/digit.png" for i in range(7)]


def test_npz_has_arrays_and_latents(pairs: GenerationSpec) -> None:
    """An array of each domain, and the latents that they were generated from."""
    generated = generate(pairs)
    with np.load(io.BytesIO(complete(PAIR_FORMATS["npz"].encode(generated)))) as arrays:
        assert set(arrays) == {"digit", "edge", LATENT}
        assert all(np.array_equal(arrays[name], image) for name, image in generated.images.items())
        assert np.array_equal(arrays[LATENT], generated.inputs[LATENT])


@pytest.mark.parametrize("name", ["png", "webp"])
def test_a_sheet_has_a_row_for_each_pair(pairs: GenerationSpec, name: str) -> None:
    """Domains are side by side, the larger one whole."""
    generated = generate(pairs)
    sheet = np.asarray(Image.open(io.BytesIO(complete(PAIR_FORMATS[name].encode(generated)))).convert("RGB"))
    assert sheet.shape == (5 * 10, 6 + 9, 3)
    assert np.array_equal(sheet[20:30, 6:], generated.images["edge"][2])


@pytest.mark.parametrize("name", ["gif", "webp", "png"])
def test_an_animation_has_every_frame(frames: GenerationSpec, name: str) -> None:
    """Frames show the domains side by side."""
    animation = Image.open(io.BytesIO(complete(FRAME_FORMATS[name].encode(generate(frames)))))
    assert (getattr(animation, "n_frames", 1), animation.size) == (7, (15, 10))


@pytest.mark.parametrize(("formats", "name"), FORMATS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_format_can_be_stopped_between_images(
    pairs: GenerationSpec, frames: GenerationSpec, formats: dict[str, Any], name: str
) -> None:
    """An encoder yields at least once for each image, array or row, and its bytes are the same each time."""
    spec = frames if formats is FRAME_FORMATS else pairs
    large = (
        replace(spec, latents=spec.latents * 20)
        if formats is PAIR_FORMATS
        else replace(spec, path=InterpolationPath(40, "lerp", False))
    )
    generated = generate(large)
    steps = sum(1 for _ in formats[name].encode(generated))
    assert steps >= (3 if name == "npz" else large.size)
    assert complete(formats[name].encode(generated)) == complete(formats[name].encode(generated))


@pytest.mark.parametrize(("formats", "name"), FORMATS, ids=lambda value: value if isinstance(value, str) else "")
def test_estimates_grow_with_pixels_and_images(
    frames: GenerationSpec, pairs: GenerationSpec, formats: dict[str, Any], name: str
) -> None:
    """More images take longer to encode, and a GIF longer than others: what is long must not be taken for short."""
    spec = frames if formats is FRAME_FORMATS else pairs
    form = formats[name]
    fewer = replace(spec, domains=("digit",))
    assert 0 < form.seconds(fewer) < form.seconds(spec)
    assert form.seconds(spec) <= FRAME_FORMATS["gif"].seconds(spec)
