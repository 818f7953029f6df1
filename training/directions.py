"""Directions of a generator's latents along which its images change most: closed-form factorisation.

Shen & Zhou, SeFa (CVPR 2021), section 3: the singular vectors of the weights of the layers that take the latent. The
weights are read from the exported graph, so that a model whose run is gone has directions, too.
Axes: B batch, Z latent, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.latents import draw_latent
from service.metadata import LATENT, MAX_DIRECTIONS, Direction, ModelMetadata, Prior

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SPREADS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of a sheet
DIGITS = 7  # of a value in the metadata


def with_directions(model: onnx.ModelProto, metadata: ModelMetadata) -> ModelMetadata:
    """Return a generator's metadata with the directions of its graph, named as its recipe names them."""
    assert metadata.prior is not None, "a generator's metadata have one"
    names: Any = metadata.provenance.experiment.get("direction_names", ())
    return metadata.model_copy(update={"directions": find_directions(model, metadata.prior, names)})


def find_directions(model: onnx.ModelProto, prior: Prior, names: Sequence[str] = ()) -> tuple[Direction, ...]:
    """Return unit vectors of the latent, the one that moves the first features most first.

    Those of equal numbers have the given names; an empty one is none. The sign is that of the greatest value.
    """
    weights = first_weights(model, prior.latent_dim)
    vectors = np.linalg.svd(weights, full_matrices=False)[0].T[:MAX_DIRECTIONS]
    spread = 1.0 if prior.distribution == "normal" else math.sqrt(1 / 3)
    directions = []
    for i, vector in enumerate(vectors):
        signed = vector * np.sign(vector[np.abs(vector).argmax()])
        values = tuple(float(f"{value:.{DIGITS}g}") for value in signed)
        name = names[i] if i < len(names) and names[i] else None
        directions.append(Direction(name=name, vector=values, spread=round(spread, DIGITS)))
    return tuple(directions)


def first_weights(model: onnx.ModelProto, latent_dim: int) -> NDArray[np.float64]:
    """Return what the layers that take the latent add for each of its values: [Z, F], of all layers together."""
    outputs = _first_outputs(model)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    points = np.concatenate([np.zeros((1, latent_dim)), np.eye(latent_dim)]).astype(np.float32)
    features = [found.reshape(len(points), -1) for found in session.run(outputs, {LATENT: points})]
    joined = np.concatenate(features, axis=1).astype(np.float64)
    weights: NDArray[np.float64] = joined[1:] - joined[0]
    return weights


def _first_outputs(model: onnx.ModelProto) -> list[str]:
    """Return the outputs of the first linear layers on every way from the latent."""
    reached, outputs = {LATENT}, list[str]()
    for node in model.graph.node:  # in the order of their computation
        if not reached & set(node.input):
            continue
        if node.op_type in LINEAR:
            outputs.append(node.output[0])
        else:
            reached |= set(node.output)
    return outputs


def direction_pairs(metadata: ModelMetadata, file: Path, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return the pairs of a seed moved along every direction by SPREADS: {domain: uint8 [B, H, W, C]}, B of both."""
    assert metadata.prior is not None, "a generator's metadata have one"
    latent = draw_latent(metadata.prior, seed)
    rows = [
        latent + step * one.spread * np.array(one.vector, np.float32) for one in metadata.directions for step in SPREADS
    ]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [domain.name for domain in metadata.domains]
    return dict(zip(names, session.run(names, {LATENT: np.array(rows, np.float32)}), strict=True))
