"""Real models of a few kilobytes, made in milliseconds with the `onnx` package and without torch."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.metadata import CLASSES, LATENT, METADATA_KEY, PREVIOUS, Domain, ModelMetadata, Prior, Provenance

# The Hugging Face libraries read these when imported: no network, and nothing in the home folder.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="cogan-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

LATENT_DIM = 8
CLASS_NAMES = ("zero", "one", "two")  # of tiny classifiers
Shape = tuple[int, int, int]  # height, width, channels
MakeModel = Callable[..., Path]
Parts = tuple[list[Any], list[onnx.NodeProto], list[onnx.TensorProto], list[Any]]  # of a graph


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
    if changes.get("kind") == "classifier":
        fields |= {"prior": None, "classes": CLASS_NAMES}
    return ModelMetadata(**(fields | changes))


def build_graph(metadata: ModelMetadata, turns: int = 0) -> onnx.ModelProto:
    """Build the graph that a model of this metadata has.

    A run of a generator fails if a latent's first value is 50 or more. Every run is slowed down by so many `turns`
    of a loop, about a microsecond each.
    """
    builders = {"generator": _generator, "classifier": _classifier, "encoder": _encoder}
    inputs, nodes, weights, outputs = builders[metadata.kind](metadata)
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [*weights, *_guard_weights(turns)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _generator(metadata: ModelMetadata) -> Parts:
    """Latent [B, Z] -> MatMul, Sigmoid, x 255, Cast, Reshape -> uint8 [B, H, W, C] for every domain."""
    rng = np.random.default_rng(7)
    nodes, weights, outputs = _guard(LATENT), [], []
    for domain in metadata.domains:
        name, shape = domain.name, (domain.height, domain.width, domain.channels)
        weights.append(_weight(rng, f"{name}_weight", LATENT_DIM, math.prod(shape)))
        weights.append(numpy_helper.from_array(np.array([-1, *shape]), f"{name}_shape"))
        nodes += [
            helper.make_node("MatMul", ["guarded", f"{name}_weight"], [f"{name}_sum"]),
            helper.make_node("Sigmoid", [f"{name}_sum"], [f"{name}_share"]),
            helper.make_node("Mul", [f"{name}_share", "white"], [f"{name}_level"]),
            helper.make_node("Cast", [f"{name}_level"], [f"{name}_flat"], to=TensorProto.UINT8),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
        outputs.append(_port(name, TensorProto.UINT8, *shape))
    return [_port(LATENT, TensorProto.FLOAT, LATENT_DIM)], nodes, weights, outputs


def _classifier(metadata: ModelMetadata) -> Parts:
    """Images uint8 [B, H, W, C] -> Cast, Flatten, MatMul, Softmax -> probabilities, float32 [B, K]."""
    inputs, nodes, weights, sums = _read_images(metadata, len(metadata.classes))
    nodes.append(helper.make_node("Softmax", sums, [CLASSES], axis=1))
    return inputs, nodes, weights, [_port(CLASSES, TensorProto.FLOAT, len(metadata.classes))]


def _encoder(metadata: ModelMetadata) -> Parts:
    """Images uint8 [B, H, W, C] of every domain -> Cast, Flatten, MatMul, Sum with half of `previous` -> latent."""
    inputs, nodes, weights, sums = _read_images(metadata, LATENT_DIM)
    inputs.append(_port(PREVIOUS, TensorProto.FLOAT, LATENT_DIM))
    weights.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    nodes.append(helper.make_node("Mul", [PREVIOUS, "half"], ["kept"]))
    nodes.append(helper.make_node("Sum", [*sums, "kept"], [LATENT]))
    return inputs, nodes, weights, [_port(LATENT, TensorProto.FLOAT, LATENT_DIM)]


def _read_images(metadata: ModelMetadata, size: int) -> Parts:
    """Map the images of every domain to [B, size]; the names of these come last."""
    rng = np.random.default_rng(7)
    inputs, nodes, weights, sums = [], list[onnx.NodeProto](), [], []
    for i, domain in enumerate(metadata.domains):
        name, shape = domain.name, (domain.height, domain.width, domain.channels)
        inputs.append(_port(name, TensorProto.UINT8, *shape))
        weights.append(_weight(rng, f"{name}_weight", math.prod(shape), size))
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_level"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", [f"{name}_level"], [f"{name}_flat"]),
            helper.make_node("Div", [f"{name}_flat", "white"], [f"{name}_share"]),
        ]
        nodes += _guard(f"{name}_share") if i == 0 else []
        nodes.append(
            helper.make_node("MatMul", [f"{name}_share" if i else "guarded", f"{name}_weight"], [f"{name}_sum"])
        )
        sums.append(f"{name}_sum")
    return inputs, nodes, weights, sums


def _port(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _weight(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), name)


def _guard(name: str) -> list[onnx.NodeProto]:
    """Look up the first value of a tensor in a table of zeros, which fails past its end; turn; add the zeros."""
    boolean = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["go_on_next"]), helper.make_node("Neg", ["zero"], ["zero_next"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            boolean,
            helper.make_tensor_value_info("zero", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on_next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("zero_next", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("Slice", [name, "from", "to", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["looked_up"]),
        helper.make_node("Loop", ["turns", "", "looked_up"], ["turned"], body=body),
        helper.make_node("Add", [name, "turned"], ["guarded"]),
    ]


def _guard_weights(turns: int) -> list[onnx.TensorProto]:
    arrays = {
        "from": np.array([0]),
        "to": np.array([1]),
        "axis": np.array([1]),
        "table": np.zeros(50, np.float32),
        "turns": np.array(turns),
        "white": np.array(255, np.float32),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def write_model(
    models_dir: Path,
    domains: Sequence[str] | dict[str, Shape] | None = None,
    name: str = "tiny",
    version: str = "1",
    turns: int = 0,
    **changes: Any,
) -> Path:
    """Write <models_dir>/<name>/<version>/model.onnx; `changes` replace fields of its metadata.

    Domains without shapes get different ones. With `kind` it is a classifier of CLASS_NAMES or a pass of an encoder,
    whose images are its inputs.
    """
    known = ("digit",) if changes.get("kind") == "classifier" else ("digit", "edge")
    shapes = domains if isinstance(domains, dict) else domain_shapes(domains or known)
    metadata = describe_model(name, version, shapes, **changes)
    model = build_graph(metadata, turns)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    path = models_dir / name / version / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of scikit-learn's digits, <split>/<label>/<i>.png of 28x28: 300 train, 100 test."""
    from sklearn.datasets import load_digits  # the service's tests run without it

    folder = tmp_path_factory.mktemp("data") / "digits"
    source = load_digits()
    for i in range(400):
        place = folder / ("train" if i < 300 else "test") / str(source.target[i])
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((source.images[i] * (255 / 16)).astype(np.uint8))
        small.resize((28, 28), Image.Resampling.BICUBIC).save(place / f"{i}.png")
    return folder


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Return an empty folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny_model(models_dir: Path) -> MakeModel:
    """Return what writes a tiny model of the given domains and returns its path."""
    return partial(write_model, models_dir)
