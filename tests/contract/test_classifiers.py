"""The committed classifiers: small, served, as accurate as they state, and none that evaluates models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.app import create_app
from service.settings import Settings
from tests.contract.committed import METADATA, MODELS, model_files, open_session
from training.config.data import DomainConfig
from training.data.dataset import load_split
from training.networks.coupled import latents_of_seeds

GENERATORS = {METADATA[file].name: METADATA[file] for file in model_files("generator")}
CLASSIFIED = {name: metadata for name, metadata in GENERATORS.items() if "class_agreement" in metadata.quality}
CLASSIFIERS = {METADATA[file].name: file for file in model_files("classifier")}
MIN_ACCURACY = {"edge": 0.985, "upright": 0.985, "italic": 0.985}  # else 0.99
DIGITS = tuple("0123456789")
LETTERS = tuple("ABDEFGHIJLMNPQRTYabcdefghijklmnopqrstuvwxyz")  # nine capitals look like small letters
TEST_IMAGES = {"print": 740, "upright": 1_508, "italic": 1_508}  # else the 10,000 of MNIST
FONTS, MNIST = "OFL", "CC BY-SA 3.0"  # licences
MISSED = {DIGITS: 0, LETTERS: 4}  # classes that are not among 500 pairs: the model of letters draws no A, and few m
LEAST_AGREEMENT = {
    "digit_mnistm": 0.8,
    "digit_print": 0.85,
    "letters": 0.75,
}  # of pairs that are not filtered; else 0.9
MAX_BYTES = 1_000_000
EVALUATION_SEED, LOSS_SEED = 0, 1  # of the classifiers in classifiers/ and couplers/, which stay out of models/
DATA = Path(os.environ.get("COGAN_DATA", "/nowhere"))

each_classifier = pytest.mark.parametrize("name", CLASSIFIERS)


def probabilities(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the class probabilities [B, K] of images [B, H, W, C]."""
    session, (domain,) = open_session(CLASSIFIERS[name]), METADATA[CLASSIFIERS[name]].domains
    parts = [session.run(["classes"], {domain.name: images[at : at + 500]})[0] for at in range(0, len(images), 500)]
    return np.concatenate(parts)


def generate(name: str, count: int) -> dict[str, NDArray[np.uint8]]:
    """Return the pairs of seeds 0 to count - 1: uint8 [B, H, W, C] by domain."""
    (file,) = (file for file in model_files("generator") if METADATA[file].name == name)
    metadata, session = METADATA[file], open_session(file)
    assert metadata.prior is not None
    names = [domain.name for domain in metadata.domains]
    parts = [
        session.run(names, {"latent": part.numpy()})
        for part in latents_of_seeds(metadata.prior, range(count)).split(100)
    ]
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def test_each_domain_with_classes_has_a_classifier() -> None:
    """Every domain of a committed generator of digits or letters is classified by a model that names the generator."""
    wanted = {(name, domain.name) for name, metadata in CLASSIFIED.items() for domain in metadata.domains}
    found = {
        (name, METADATA[file].domains[0].name) for file in CLASSIFIERS.values() for name in METADATA[file].goes_with
    }
    assert found == wanted
    assert len(CLASSIFIERS) == len({domain for _, domain in wanted})


@each_classifier
def test_a_classifier_is_small_and_in_its_place(name: str) -> None:
    """It has at most 1 MB, and lies where its name and version say, with Triton's configuration."""
    file = CLASSIFIERS[name]
    assert file.stat().st_size <= MAX_BYTES
    assert (METADATA[file].name, METADATA[file].version) == (file.parts[-3], file.parts[-2])
    (domain,) = METADATA[file].domains
    config = (file.parents[1] / "config.pbtxt").read_text()
    assert f'name: "{domain.name}" data_type: TYPE_UINT8 dims: [ 28, 28, {domain.channels} ]' in config
    assert f'name: "classes" data_type: TYPE_FP32 dims: [ {len(METADATA[file].classes)} ]' in config


@each_classifier
def test_a_classifier_states_classes_accuracy_and_training(name: str) -> None:
    """Class names are digits or letters, the accuracy is that of all test images, recipe and licence are there."""
    metadata = METADATA[CLASSIFIERS[name]]
    quality: Any = metadata.quality
    (domain,) = (domain.name for domain in metadata.domains)
    assert quality["images"] == TEST_IMAGES.get(domain, 10_000)
    assert quality["accuracy"] >= MIN_ACCURACY.get(domain, 0.99)
    assert list(quality["accuracy_by_class"]) == list(metadata.classes)
    assert (FONTS if domain in TEST_IMAGES else MNIST) in metadata.data_license
    assert len(metadata.provenance.commit) == 40  # of a clean checkout


@each_classifier
def test_a_classifier_neither_evaluates_models_nor_trained_them(name: str) -> None:
    """Its architecture or seed differs from those of the evaluation and of the semantic loss."""
    provenance = METADATA[CLASSIFIERS[name]].provenance
    assert provenance.experiment["table"] == "digit_small"
    assert provenance.seed not in (EVALUATION_SEED, LOSS_SEED)


@each_classifier
@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="COGAN_DATA holds no folder mnist")
def test_the_accuracy_is_that_of_the_file_on_real_test_images(name: str) -> None:
    """In onnxruntime all test images give the stated accuracy, in all and by class."""
    metadata = METADATA[CLASSIFIERS[name]]
    described: Any = metadata.provenance.experiment["domain"]
    test_set = load_split(DomainConfig(**described), "test", (28, 28))
    assert test_set.labels is not None
    labels = test_set.labels.numpy()
    right = probabilities(name, test_set.images.movedim(1, -1).numpy()).argmax(1) == labels
    quality: Any = metadata.quality
    assert right.mean() == pytest.approx(quality["accuracy"], abs=3e-4)  # another CPU
    for number, name_of_class in enumerate(metadata.classes):
        own = right[labels == number]
        assert own.mean() == pytest.approx(quality["accuracy_by_class"][name_of_class], abs=2.5 / len(own))


@pytest.mark.parametrize("name", CLASSIFIED)
def test_classifiers_agree_on_the_images_of_a_pair(name: str) -> None:
    """The classes of 500 generated pairs agree between domains, and classes occur."""
    images = generate(name, 500)
    of_domain = {METADATA[file].domains[0].name: classifier for classifier, file in CLASSIFIERS.items()}
    classes = {domain: probabilities(of_domain[domain], batch).argmax(1) for domain, batch in images.items()}
    (names,) = {METADATA[CLASSIFIERS[of_domain[domain]]].classes for domain in images}
    first, *others = classes.values()
    assert len(set(first)) >= len(names) - MISSED[names]
    assert all((first == other).mean() >= LEAST_AGREEMENT.get(name, 0.9) for other in others)


@pytest.mark.anyio
async def test_the_service_infers_on_every_classifier() -> None:
    """/models lists each with its kind and class names, and /v2 returns what onnxruntime computes."""
    app = create_app(Settings(models_dir=MODELS, threads=1, processes=1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        listed = (await client.get("/models")).raise_for_status().json()
        assert listed["refused"] == []
        cards = {card["name"]: card for card in listed["models"] if card["kind"] == "classifier"}
        assert cards.keys() == CLASSIFIERS.keys()
        pairs: dict[str, NDArray[np.uint8]] = {}
        for generator in CLASSIFIED:
            pairs |= generate(generator, 3)
        for name, card in cards.items():
            assert tuple(card["classes"]) == METADATA[CLASSIFIERS[name]].classes
            (domain,) = card["domains"]
            images = pairs[domain["name"]]
            tensor = {"name": domain["name"], "shape": list(images.shape), "datatype": "UINT8"}
            body = {"inputs": [tensor | {"data": images.flatten().tolist()}]}
            response = (await client.post(f"/v2/models/{name}/infer", json=body)).raise_for_status().json()
            (output,) = response["outputs"]
            assert (output["name"], output["datatype"], output["shape"]) == (
                "classes",
                "FP32",
                [3, len(card["classes"])],
            )
            found = np.array(output["data"]).reshape(3, -1)
            np.testing.assert_allclose(found, probabilities(name, images), atol=1e-5)
