"""Real models of a few kilobytes, made in milliseconds with the `onnx` package and without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.metadata import METADATA_KEY, Domain, ModelMetadata, Prior, Provenance

LATENT_DIM = 8
Shape = tuple[int, int, int]  # height, width, channels
MakeModel = Callable[..., Path]


def domain_shapes(names: Sequence[str]) -> dict[str, Shape]:
    """Give domains different sizes, grey and colour by turns."""
    return {name: (8 + 2 * i, 6 + 3 * i, 3 if i % 2 else 1) for i, name in enumerate(names)}


def describe_model(name: str, version: str, shapes: dict[str, Shape], **changes: Any) -> ModelMetadata:
    """Write the metadata of a tiny model; `changes` replace its fields."""
    domains = [
        Domain(name=domain, height=h, width=w, channels=1 if c == 1 else 3, description=f"tiny {domain}")
        for domain, (h, w, c) in shapes.items()
    ]
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "prior": Prior(distribution="normal", latent_dim=LATENT_DIM),
        "domains": domains,
        "provenance": Provenance(experiment={}, seed=0, steps=0, images_seen=0, commit="", versions={}),
        "quality": {"pixel_agreement": 0.96},
        "data_license": "none: made for tests",
    }
    return ModelMetadata(**(fields | changes))


def build_graph(shapes: dict[str, Shape], latent_dim: int = LATENT_DIM, work: int = 0) -> onnx.ModelProto:
    """Build latent [B, Z] -> MatMul, Sigmoid, x 255, Cast, Reshape -> uint8 [B, H, W, C] for every domain.

    `work` puts so many 512 x 512 products before it, to make a run slow.
    """
    rng = np.random.default_rng(7)
    nodes, weights, outputs = [], [], []
    latent = "latent"
    for i in range(work):
        size = (latent_dim if i == 0 else 512, 512)
        weights.append(numpy_helper.from_array(rng.normal(0, 0.1, size).astype(np.float32), f"work_{i}"))
        nodes.append(helper.make_node("MatMul", [latent, f"work_{i}"], [f"worked_{i}_sum"]))
        nodes.append(helper.make_node("Tanh", [f"worked_{i}_sum"], [latent := f"worked_{i}"]))
    weights.append(numpy_helper.from_array(np.float32(255), "white"))
    for name, (height, width, channels) in shapes.items():
        weight = rng.normal(0, 1, (512 if work else latent_dim, height * width * channels)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}_weight"))
        weights.append(numpy_helper.from_array(np.array([-1, height, width, channels]), f"{name}_shape"))
        nodes += [
            helper.make_node("MatMul", [latent, f"{name}_weight"], [f"{name}_sum"]),
            helper.make_node("Sigmoid", [f"{name}_sum"], [f"{name}_share"]),
            helper.make_node("Mul", [f"{name}_share", "white"], [f"{name}_level"]),
            helper.make_node("Cast", [f"{name}_level"], [f"{name}_flat"], to=TensorProto.UINT8),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
        shape = ["batch", height, width, channels]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", latent_dim])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Return an empty folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny_model(models_dir: Path) -> MakeModel:
    """Return what writes a tiny model of the given domains and returns its path."""

    def make(
        domains: Sequence[str] = ("digit", "edge"),
        name: str = "tiny",
        version: str = "1",
        work: int = 0,
        **changes: Any,
    ) -> Path:
        """Write models/<name>/<version>/model.onnx; `changes` replace fields of its metadata."""
        shapes = domain_shapes(domains)
        model = build_graph(shapes, work=work)
        metadata = describe_model(name, version, shapes, **changes)
        helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
        path = models_dir / name / version / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(model, path)
        return path

    return make
