"""A classifier among the models: the service says why it is not served, and goes on serving the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from service.engine.model_repository import ModelRepository, Refused
from service.metadata import ModelMetadata
from tests.conftest import describe_model
from training.architectures import DISCRIMINATORS
from training.exporting.onnx_file import prove, write_onnx
from training.networks.adapted import AdaptedClassifier
from training.networks.coupled import CoupledDiscriminator


def test_the_service_refuses_a_classifier_by_its_kind(
    tiny_model: Callable[..., Path], models_dir: Path
) -> None:
    """A proven file is opened, read and refused in a sentence; the generator beside it is served."""
    torch.manual_seed(0)
    discriminator = CoupledDiscriminator(DISCRIMINATORS["digit"], {"usps": 1}, 1 / 16, 3, classes=10)
    classifier = AdaptedClassifier(discriminator, "usps", (0.0, 1.0), 10).eval()
    fields = describe_model("reader", "1", {"usps": (28, 28, 1)}).model_dump()
    metadata = ModelMetadata(**(fields | {"kind": "classifier"}))
    file = models_dir / "reader" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    write_onnx(classifier, metadata, file)
    prove(classifier, metadata, file)
    tiny_model(name="tiny")
    repository = ModelRepository(models_dir, "cpu", 4)
    opened = {name: repository.open(name, None) for name in repository.names()}
    assert opened["tiny"].model is not None
    assert opened["reader"].model is None
    reason = "its kind is 'classifier'; only a 'generator' is served"
    assert opened["reader"].refused == (Refused("reader/1/model.onnx", reason),)
