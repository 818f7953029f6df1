"""The committed generators: they open, they are small, and they are as good as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from service.metadata import ModelMetadata
from tests.contract.committed import METADATA, MODELS, model_files, open_session
from training.losses.pixels import transform
from training.metrics.quality import pixel_agreement
from training.networks.coupled import latents_of_seeds
from training.onnx_export import SPREADS
from training.restore import restore

FILES = model_files("generator")
LEAST_PIXELS = {"edge": 0.952, "negative": 0.967}  # the figures of Liu & Tuzel 2016, section 4
LEAST_CLASSES = {"letters": 0.83, "digit_print": 0.93, "digit_edge_negative": 0.98}  # of other digits 0.99
LEAST_BALANCE = {"letters": 0.98}  # of digits 0.98
MOST_DISTANCE = 1.5  # within pairs, of that within true ones
MAX_BYTES_OF_ALL = 40_000_000
MAX_BYTES = 8_000_000


each_generator = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.parts[-2]}")


def open_model(file: Path) -> tuple[onnxruntime.InferenceSession, ModelMetadata]:
    """Open a file on one thread, and return its metadata."""
    return open_session(file), METADATA[file]


def pixels_of(metadata: ModelMetadata) -> dict[str, dict[str, Any]]:
    """Return the recorded pixel agreement of every domain that has one."""
    recorded: Any = metadata.quality["pixel_agreement"]
    assert isinstance(recorded, dict)
    return recorded


def test_the_models_are_there() -> None:
    """The service has the three models of the paper's tasks to show, and a clone fetches at most 40 MB of models."""
    assert sum(file.stat().st_size for file in MODELS.glob("*/*/model.onnx")) <= MAX_BYTES_OF_ALL
    assert {file.parts[-3] for file in FILES} >= {"digit_edge", "digit_negative", "digit_edge_negative"}


@each_generator
def test_a_model_is_small_and_in_its_place(file: Path) -> None:
    """It has at most 8 MB, and is where its name and version say, with Triton's configuration."""
    _, metadata = open_model(file)
    assert file.stat().st_size <= MAX_BYTES
    assert (metadata.name, metadata.version) == (file.parts[-3], file.parts[-2])
    assert (file.parents[1] / "config.pbtxt").is_file()


@each_generator
def test_a_model_is_restored(file: Path, tmp_path: Path) -> None:
    """A run folder is made of it, whose network draws what it does: its own run may be gone."""
    run, report = restore(file, tmp_path)
    assert "onnxruntime computes what PyTorch does" in report
    assert run.quality(METADATA[file].provenance.steps) == METADATA[file].quality


@each_generator
def test_a_model_meets_its_figures(file: Path) -> None:
    """On 10,000 pairs: pixels agree at least as the paper's do, classes agree, all are generated, pairs are near."""
    metadata = open_model(file)[1]
    quality: Any = metadata.quality
    assert quality["pairs"] == 10_000
    assert set(quality["pixel_agreement"]) in (set(), set(quality.get("class_agreement", {})))
    assert "class_agreement" in quality or "counterpart_distance" in quality
    if "class_agreement" in quality:
        assert set(quality["class_balance"]) == {domain.name for domain in metadata.domains}
    for name, measured in quality["pixel_agreement"].items():
        assert measured["binarised"] >= LEAST_PIXELS[name], name
    assert all(share >= LEAST_CLASSES.get(metadata.name, 0.99) for share in quality.get("class_agreement", {}).values())
    assert all(
        balance >= LEAST_BALANCE.get(metadata.name, 0.98) for balance in quality.get("class_balance", {}).values()
    )
    for measured in quality.get("counterpart_distance", {}).values():
        assert measured["generated"] <= MOST_DISTANCE * measured["true_distance"]


@each_generator
def test_a_models_pixels_agree_as_recorded(file: Path) -> None:
    """Generated again from seeds 0 to 999, its pairs agree as its metadata say, within 0.01."""
    session, metadata = open_model(file)
    assert metadata.prior is not None
    names = [domain.name for domain in metadata.domains]
    parts = [
        session.run(names, {"latent": part.numpy()})
        for part in latents_of_seeds(metadata.prior, range(1000)).split(100)
    ]
    generated = {
        name: torch.cat([torch.from_numpy(part[i]) for part in parts]).movedim(-1, 1) for i, name in enumerate(names)
    }
    domains: Any = metadata.provenance.experiment["domains"]
    transforms = {domain["name"]: domain["transform"] for domain in domains}
    for name, recorded in pixels_of(metadata).items():
        expected = transform(generated[recorded["of"]], transforms[name])
        again = pixel_agreement(expected, generated[name])
        assert again["binarised"] == pytest.approx(recorded["binarised"], abs=0.01)


@each_generator
def test_pairs_agree_along_directions(file: Path) -> None:
    """Moved along any direction by up to two spreads, the domains read alike as often as unmoved, within 0.03.

    Images that no classifier reads stay as near to one another.
    """
    session, metadata = open_model(file)
    assert metadata.prior is not None
    assert len(metadata.directions) == 8
    readers = {
        other.domains[0].name: open_session(place)
        for place, other in METADATA.items()
        if other.kind == "classifier" and metadata.name in other.goes_with
    }
    latents = latents_of_seeds(metadata.prior, range(400)).numpy()

    def agreement(moved: NDArray[np.float32]) -> NDArray[np.float64]:
        images = session.run([domain.name for domain in metadata.domains], {"latent": moved})
        if not readers:
            first, *others = (batch / np.float32(255) for batch in images)
            return np.array([1 - np.sqrt(((one - first) ** 2).mean((1, 2, 3))).mean() for one in others])
        named = zip(metadata.domains, images, strict=True)
        read = [readers[domain.name].run(None, {domain.name: batch})[0].argmax(1) for domain, batch in named]
        return np.array([(one == read[0]).mean() for one in read[1:]])

    still = agreement(latents)
    for one in metadata.directions:
        steps = (step * one.spread * np.array(one.vector, np.float32) for step in SPREADS)
        along = np.mean([agreement(latents + step) if step.any() else still for step in steps], axis=0)
        assert (along > still - 0.03).all()
