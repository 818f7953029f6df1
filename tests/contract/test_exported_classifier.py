"""A classifier that training exports is served, and gives the probabilities that torch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from service.app import create_app
from service.metadata import CLASSES
from service.settings import Settings
from tests.conftest import describe_model
from training.networks.coupled import AdaptedClassifier, CoupledDiscriminator
from training.onnx_export import make_graph, prove, write_onnx
from training.zoo import DISCRIMINATORS


def test_an_exported_classifier_is_served(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """Beside a generator, with its class names, and with the values of the network."""
    torch.manual_seed(0)
    discriminator = CoupledDiscriminator(DISCRIMINATORS["digit"], {"usps": 1}, 1 / 16, 3, classes=10)
    classifier = AdaptedClassifier(discriminator, "usps", (0.0, 1.0), 10).eval()
    names = tuple(f"digit {number}" for number in range(10))
    metadata = describe_model("reader", "1", {"usps": (28, 28, 1)}, kind="classifier", classes=names)
    file = models_dir / "reader" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    write_onnx(classifier, metadata, file)
    prove(make_graph(classifier, metadata), file)
    tiny_model(name="tiny")
    registry = create_app(Settings(models_dir=models_dir, threads=1, processes=1)).state.registry
    assert registry.errors == []
    kinds = {model.name: model.metadata.kind for model in registry.models}
    assert kinds == {"reader": "classifier", "tiny": "generator"}
    reader = registry.model("reader")
    assert (reader.metadata.classes, registry.default) == (names, "tiny")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1)
    np.testing.assert_allclose(reader.run({"usps": images})[CLASSES], expected, atol=1e-5)
