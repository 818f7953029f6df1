"""A model file is opened only if it is what its metadata says."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.engine.onnx_model import OnnxModel
from service.engine.sessions import ModelRefused, require_provider
from service.errors import ProviderMissing

DOMAINS = [("only",), ("digit", "edge"), ("a", "b", "c"), ("a", "b", "c", "d", "e")]


@pytest.mark.parametrize("domains", DOMAINS)
def test_every_domain_is_drawn(tiny_model: Callable[..., Path], domains: tuple[str, ...]) -> None:
    """Any number of domains is drawn by the same code, each in its own size and channels."""
    model = OnnxModel(tiny_model(domains))
    images = model.run(np.ones((3, 8), np.float32))
    assert tuple(images) == model.domains == domains
    for domain in model.metadata.domains:
        assert images[domain.name].shape == (3, domain.height, domain.width, domain.channels)
        assert images[domain.name].dtype == np.uint8


def test_digest_is_that_of_the_file(tiny_model: Callable[..., Path]) -> None:
    """Anybody can compute a model's digest from its file."""
    path = tiny_model()
    assert OnnxModel(path).digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_bytes_are_the_same_in_every_batch(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latent has the same bytes in a batch of any size, at any place in it, drawn whole or in parts."""
    model = OnnxModel(tiny_model(), max_batch=64)
    latents = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
    alone = [model.run(latent[None]) for latent in latents]
    for cached, size in itertools.product((8, 64), range(1, 65)):
        monkeypatch.setattr("service.engine.onnx_model.CACHED", cached)
        images = model.run(latents[-size:])
        for i, expected in enumerate(alone[-size:]):
            assert all(np.array_equal(images[name][i], expected[name][0]) for name in model.domains)


def test_runs_of_large_images_are_small(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest domain bounds the pixels of a run, but a run has one latent at least."""
    path = tiny_model()  # of 8 x 6 and 10 x 9 pixels
    for most, latents in ((10**6, 16), (360, 4), (10, 1)):
        monkeypatch.setattr("service.engine.onnx_model.MOST_PIXELS", most)
        assert OnnxModel(path, max_batch=16).max_batch == latents


def test_padding_does_not_show(tiny_model: Callable[..., Path]) -> None:
    """Padded to one size, as on a GPU, a batch has the images that it has unpadded."""
    plain, padded = (OnnxModel(path, max_batch=8) for path in [tiny_model()] * 2)
    padded.provider = "cuda"  # its session stays on the CPU
    latents = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    for name, image in plain.run(latents).items():
        assert np.array_equal(padded.run(latents)[name], image)


def leave_out_an_output(model: onnx.ModelProto) -> None:
    """Drop the last domain."""
    del model.graph.output[-1]


def rename_the_input(model: onnx.ModelProto) -> None:
    """Call the input z."""
    model.graph.input[0].name = "z"
    for node in model.graph.node:
        node.input[:] = ["z" if name == "latent" else name for name in node.input]


def promise_longer_latents(model: onnx.ModelProto) -> None:
    """Let the metadata disagree about the latents."""
    text = model.metadata_props[0].value
    model.metadata_props[0].value = text.replace('"latent_dim":8', '"latent_dim":9')


def promise_another_height(model: onnx.ModelProto) -> None:
    """Let the metadata disagree about the images."""
    text = model.metadata_props[0].value
    model.metadata_props[0].value = text.replace('"height":8', '"height":7')


def drop_metadata(model: onnx.ModelProto) -> None:
    """Leave a plain ONNX file."""
    del model.metadata_props[:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (leave_out_an_output, r"outputs are \['digit'\]; the metadata promises \['digit', 'edge'\]"),
        (rename_the_input, r"inputs are \['z'\]; the metadata promises \['latent'\]"),
        (promise_longer_latents, r"'latent' is tensor\(float\).*promises tensor\(float\) \['batch', 9\]"),
        (
            promise_another_height,
            r"'digit' is tensor\(uint8\) \['batch', 8, 6, 1\].*\['batch', 7, 6, 1\]",
        ),
        (drop_metadata, "no 'cogan' metadata"),
    ],
)
def test_a_file_that_breaks_its_promise_is_refused(
    tiny_model: Callable[..., Path], damage: Callable[[onnx.ModelProto], None], message: str
) -> None:
    """Names, types and sizes must be those of the metadata; the message has both sides."""
    path = tiny_model()
    model = onnx.load(path)
    damage(model)
    onnx.save(model, path)
    with pytest.raises(ModelRefused, match=message):
        OnnxModel(path)


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_damaged_file_is_refused(tiny_model: Callable[..., Path], content: bytes | None) -> None:
    """Empty, foreign and half-copied files are refused in one line."""
    path = tiny_model()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelRefused) as caught:
        OnnxModel(path)
    assert "\n" not in str(caught.value)


def test_metadata_that_is_no_text_is_refused(tiny_model: Callable[..., Path]) -> None:
    """One wrong byte refuses the file that has it, and no other."""
    path = tiny_model()
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"description"', b'"descript\xffon"', 1))
    with pytest.raises(ModelRefused, match="its metadata is not UTF-8"):
        OnnxModel(path)


def test_a_missing_gpu_stops_the_start() -> None:
    """Where onnxruntime would compute on the CPU without a word, the service says what is missing."""
    with pytest.raises(ProviderMissing, match=r"CUDAExecutionProvider.*extra 'gpu'"):
        require_provider("cuda")
