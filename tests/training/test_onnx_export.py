"""Directions of a generator: those that change the first features most, named by the recipe, kept by the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.metadata import Prior, graph_digest
from training.export import ExportOptions, export_again
from training.onnx_export import SPREADS, direction_pairs, find_directions, first_weights
from training.pretrained.exported import read_metadata

LATENT_DIM = 12


def model_of(*weights: NDArray[np.float64]) -> onnx.ModelProto:
    """Return a model with a head for each of the weights [Z, F], which take the latent by themselves, and a bias."""
    initialisers = [numpy_helper.from_array(one.astype(np.float32), f"weight{i}") for i, one in enumerate(weights)]
    initialisers.append(numpy_helper.from_array(np.float32(3).reshape(1), "bias"))
    nodes, outputs = [helper.make_node("Identity", ["latent"], ["same"])], []
    for i, one in enumerate(weights):
        nodes.append(helper.make_node("Gemm", ["same", f"weight{i}", "bias"], [f"sum{i}"]))
        nodes.append(helper.make_node("Tanh", [f"sum{i}"], [f"out{i}"]))
        outputs.append(helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, ["batch", one.shape[1]]))
    latent = helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", LATENT_DIM])
    graph = helper.make_graph(nodes, "heads", [latent], outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_first_weights_are_read_from_the_graph() -> None:
    """Those of all layers that take the latent, beside one another, without biases and what comes later."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(LATENT_DIM, 5)), rng.normal(size=(LATENT_DIM, 3))
    found = first_weights(model_of(first, second), LATENT_DIM)
    assert np.abs(found - np.concatenate([first, second], axis=1)).max() < 1e-5


@pytest.mark.parametrize(("distribution", "spread"), [("normal", 1.0), ("uniform", 0.5773503)])
def test_directions_move_the_features_most(distribution: str, spread: float) -> None:
    """The first one moves them most of all unit vectors; all are orthogonal; the spread is the prior's."""
    weights = np.random.default_rng(1).normal(size=(LATENT_DIM, 20)) * np.linspace(1, 3, LATENT_DIM)[:, None]
    prior = Prior.model_validate({"distribution": distribution, "latent_dim": LATENT_DIM})
    directions = find_directions(model_of(weights), prior, names=("", "thickness"))
    vectors = np.array([one.vector for one in directions])
    assert np.abs(vectors @ vectors.T - np.eye(8)).max() < 1e-5
    moved = np.linalg.norm(vectors @ weights, axis=1)
    assert (np.diff(moved) < 0).all()
    others = np.random.default_rng(2).normal(size=(1000, LATENT_DIM))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert moved[0] > np.linalg.norm(others @ weights, axis=1).max()
    assert [one.name for one in directions[:3]] == [None, "thickness", None]
    assert {one.spread for one in directions} == {spread}
    assert all(vector[np.abs(vector).argmax()] > 0 for vector in vectors)


def test_a_generator_is_exported_again(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Its next version has the same graph and directions, the sheet beside it shows them; the old one stays."""
    old = tiny_model(("digit",))
    before = old.read_bytes()
    file, report = export_again(old, ExportOptions(models=models_dir))
    assert (file, old.read_bytes()) == (models_dir / "tiny" / "2" / "model.onnx", before)
    assert graph_digest(file.read_bytes()) == graph_digest(before)
    metadata = read_metadata(file)
    assert (metadata.version, len(metadata.directions)) == ("2", 8)
    assert report.startswith(f"onnxruntime computes what {old} does at batches")
    pairs = direction_pairs(metadata, file, seed=0)
    moved = pairs["digit"].reshape(8, len(SPREADS), *pairs["digit"].shape[1:])
    assert (moved[:, 2] == moved[0, 2]).all()
    assert (moved[:, 0] != moved[:, 4]).any((1, 2, 3)).all()
    with Image.open(models_dir / "tiny" / "directions.png") as sheet:
        assert sheet.height == 8 * 2 * pairs["digit"].shape[2]


def test_a_copy_of_another_name_has_its_own_triton_configuration(
    tiny_model: Callable[..., Path], models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the copy, also of a file that is named from its folder."""
    old = tiny_model(("digit",), name="a")
    monkeypatch.chdir(old.parent)
    export_again(Path(old.name), ExportOptions(models=models_dir, name="better"))
    assert (models_dir / "better" / "config.pbtxt").read_text().startswith('name: "better"\nbackend: "onnxruntime"\n')


def test_a_classifier_has_no_directions(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """It is exported again without any."""
    file, _ = export_again(tiny_model(kind="classifier"), ExportOptions(models=models_dir))
    assert read_metadata(file).directions == ()
    assert not (file.parents[1] / "directions.png").exists()
