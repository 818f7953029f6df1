"""Every architecture trains and exports, for any number of domains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from tests.conftest import describe_model
from training.config.experiment import Experiment
from training.engine.trainer import Trainer
from training.networks.coupled import generate, latents_of_seeds
from training.networks.layers import build
from training.onnx_export import make_graph, prove, write_onnx
from training.zoo import CLASSIFIERS, DISCRIMINATORS, ENCODERS, GENERATORS

MakeExperiment = Callable[..., Experiment]
Begin = Callable[..., Trainer]
NAMES = ("digit", "edge", "colour")
SMALL = {"width": 1 / 32, "initialisation": "he"}
WIDER = {"face_layer_norm": {"width": 1 / 8}}  # one channel is its own mean


def opponents() -> list[tuple[str, str]]:
    """Pair every generator with a discriminator of its size, and every discriminator with a generator."""
    pairs: list[tuple[str, ...]] = []
    for size in sorted({table.size for table in GENERATORS.values()}):
        sides = [
            [name for name, table in tables.items() if table.size == size] for tables in (GENERATORS, DISCRIMINATORS)
        ]
        pairs += zip(*(islice(cycle(side), max(map(len, sides))) for side in sides), strict=True)
    return [(generator, discriminator) for generator, discriminator in pairs]


@pytest.fixture(scope="module")
def begin(make_experiment: MakeExperiment, fabric: Fabric) -> Begin:
    """Return what begins the training of two tables for so many domains, on noise."""

    def make(generator: str, discriminator: str, domains: int, **changes: object) -> Trainer:
        experiment = make_experiment(
            NAMES[:domains],
            generator=SMALL | {"table": generator},
            discriminator=SMALL | {"table": discriminator} | WIDER.get(discriminator, {}),
            **changes,
        )
        images = {
            domain.name: torch.randint(256, (8, domain.channels, *experiment.size), dtype=torch.uint8)
            for domain in experiment.domains
        }
        return Trainer(experiment, images, fabric)

    return make


@pytest.mark.parametrize("domains", [1, 2, 3])
@pytest.mark.parametrize(("generator", "discriminator"), opponents())
def test_all_of_a_table_learns(begin: Begin, generator: str, discriminator: str, domains: int) -> None:
    """Two steps change every weight of both networks: no layer is dead."""
    trainer = begin(generator, discriminator, domains)
    assert _unchanged_by_two_steps(trainer) == []


@pytest.mark.parametrize("domains", [1, 2, 3])
@pytest.mark.parametrize("table", ENCODERS)
def test_all_of_an_encoder_learns(begin: Begin, table: str, domains: int) -> None:
    """It finds latents beside the networks of its size."""
    opponent = next(pair for pair in opponents() if GENERATORS[pair[0]].size == ENCODERS[table].size)
    cycle_of_latents = {"name": "cycle", "weight": 1.0}
    trainer = begin(*opponent, domains, encoder=SMALL | {"table": table}, couplings=[cycle_of_latents])
    assert _unchanged_by_two_steps(trainer) == []


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_all_of_a_classifier_learns(name: str) -> None:
    """Every weight has a part in the classes of some image, and there is a logit of each class."""
    table = CLASSIFIERS[name]
    classifier, shape = build(table.layers, (3, *table.size), 1 / 8, {"classes": 13})
    logits = classifier(torch.randn(8, 3, *table.size))
    assert logits.shape == (8, *shape[:1]) == (8, 13)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in classifier.parameters())


def exports() -> list[tuple[str, int]]:
    """List every generator with three domains, and the first of each size with one and with two as well."""
    first = {table.size: name for name, table in reversed(GENERATORS.items())}
    return [(name, 3) for name in GENERATORS] + [(name, domains) for name in first.values() for domains in (1, 2)]


@pytest.mark.parametrize(("generator", "domains"), exports())
def test_onnxruntime_draws_what_torch_draws(begin: Begin, tmp_path: Path, generator: str, domains: int) -> None:
    """After two steps, at every batch size of the proof."""
    opponent = next(discriminator for name, discriminator in opponents() if name == generator)
    trainer = begin(generator, opponent, domains)
    trainer.step()
    trainer.step()
    average, prior = trainer.state.ema_generator.eval(), trainer.experiment.latent_prior
    generated = generate(average, latents_of_seeds(prior, range(8)))
    shapes = {name: (*images.shape[2:], images.shape[1]) for name, images in generated.items()}
    assert all(images.float().std(0).mean() > 2 for images in generated.values()), "latents make no difference"
    metadata = describe_model("tiny", "1", shapes, prior=prior)
    write_onnx(average, metadata, tmp_path / "model.onnx")
    assert "onnxruntime computes what PyTorch does" in prove(make_graph(average, metadata), tmp_path / "model.onnx")


def _unchanged_by_two_steps(trainer: Trainer) -> list[str]:
    weights = {
        f"{network}.{name}": weight
        for network, module in trainer.state.networks.items()
        for name, weight in module.named_parameters()
    }
    before = {name: weight.clone() for name, weight in weights.items()}
    trainer.step()
    trainer.step()
    assert trainer.state.not_finite() == []
    return [name for name, weight in weights.items() if torch.equal(weight, before[name])]
