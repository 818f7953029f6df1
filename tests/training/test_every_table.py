"""Every table learns and exports, for any number of domains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tests.conftest import describe_model
from training.architectures import DISCRIMINATORS, GENERATORS
from training.config import Experiment
from training.onnx_file import prove, write_onnx
from training.samples import draw, latents_of_seeds
from training.trainer import Trainer

MakeExperiment = Callable[..., Experiment]
Train = Callable[[str, str, int], Trainer]
NAMES = ("digit", "edge", "colour")


def opponents() -> list[tuple[str, str]]:
    """Pair every generator with a discriminator of its size, and every discriminator with a generator."""
    pairs: list[tuple[str, ...]] = []
    for size in sorted({table.size for table in GENERATORS.values()}):
        sides = [
            [name for name, table in tables.items() if table.size == size]
            for tables in (GENERATORS, DISCRIMINATORS)
        ]
        pairs += zip(*(islice(cycle(side), max(map(len, sides))) for side in sides), strict=True)
    return [(generator, discriminator) for generator, discriminator in pairs]


@pytest.fixture(scope="module")
def begin(make_experiment: MakeExperiment, fabric: Fabric) -> Train:
    """Return what begins the training of two tables for so many domains, on noise."""

    def make(generator: str, discriminator: str, domains: int) -> Trainer:
        small = {"width": 1 / 32, "initialisation": "he"}
        experiment = make_experiment(
            NAMES[:domains],
            generator=small | {"table": generator},
            discriminator=small | {"table": discriminator},
        )
        images = {
            domain.name: torch.randint(256, (8, domain.channels, *experiment.size), dtype=torch.uint8)
            for domain in experiment.domains
        }
        return Trainer(experiment, images, fabric)

    return make


@pytest.mark.parametrize("domains", [1, 2, 3])
@pytest.mark.parametrize(("generator", "discriminator"), opponents())
def test_all_of_a_table_learns(begin: Train, generator: str, discriminator: str, domains: int) -> None:
    """Two steps change every weight of both networks: no layer is dead."""
    trainer = begin(generator, discriminator, domains)
    before = [weight.clone() for weight in _weights(trainer)]
    trainer.step()
    trainer.step()
    assert trainer.not_finite() == []
    unchanged = [
        old.shape for old, new in zip(before, _weights(trainer), strict=True) if torch.equal(old, new)
    ]
    assert unchanged == []


@pytest.mark.parametrize(("generator", "domains"), list(zip(GENERATORS, cycle((1, 2, 3)), strict=False)))
def test_onnxruntime_draws_what_torch_draws(
    begin: Train, tmp_path: Path, generator: str, domains: int
) -> None:
    """After two steps, at every batch size of the proof; tables have one, two and three domains by turns."""
    opponent = next(discriminator for name, discriminator in opponents() if name == generator)
    trainer = begin(generator, opponent, domains)
    trainer.step()
    trainer.step()
    average, prior = trainer.average.eval(), trainer.experiment.latent_prior
    drawn = draw(average, latents_of_seeds(prior, range(8)))
    shapes = {name: (*images.shape[2:], images.shape[1]) for name, images in drawn.items()}
    assert all(images.float().std(0).mean() > 2 for images in drawn.values()), "latents make no difference"
    metadata = describe_model("tiny", "1", shapes, prior=prior)
    write_onnx(average, metadata, tmp_path / "model.onnx")
    assert "onnxruntime draws what PyTorch does" in prove(average, metadata, tmp_path / "model.onnx")


def _weights(trainer: Trainer) -> list[Tensor]:
    return [weight for network in trainer.networks.values() for weight in network.parameters()]
