"""Latents of given images, by gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from service.metadata import Prior
from training.config.experiment import Experiment
from training.engine.state import build_generator
from training.networks.coupled import CoupledGenerator, latents_of_seeds
from training.networks.inversion import invert

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def generator(make_experiment: MakeExperiment) -> CoupledGenerator:
    """Return one of three domains whose images depend on the latent, untrained."""
    torch.manual_seed(0)
    network = {"width": 1 / 32, "initialisation": "he"}
    return build_generator(make_experiment(("digit", "edge", "colour"), latent_dim=4, generator=network))


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("domain", ["digit", "colour"])
def test_a_generated_image_is_found_again(generator: CoupledGenerator, distribution: str, domain: str) -> None:
    """The latent of an image gives the image, and the other domains' too; it stays within the prior."""
    prior = Prior.model_validate({"distribution": distribution, "latent_dim": 4})
    latents = latents_of_seeds(prior, range(1000, 1003))
    with torch.no_grad():
        pairs = generator.eval()(latents)
        found = invert(generator, domain, pairs[domain], prior, restarts=3, steps=120)
        again = generator(found.latents)
    assert (found.distances < found.before / 3).all()
    for name, images in pairs.items():
        assert (again[name] - images).square().mean() < (images.roll(1, 0) - images).square().mean() / 10
    assert found.latents.abs().max() <= (3.0 if distribution == "normal" else 1.0)


def test_other_images_change_nothing(generator: CoupledGenerator) -> None:
    """An image has the same latent alone and among others, and the generator is left as it was."""
    prior = Prior(distribution="normal", latent_dim=4)
    images = torch.rand(3, 1, 28, 28)
    together = invert(generator, "digit", images, prior, restarts=2, steps=5)
    alone = invert(generator, "digit", images[1:2], prior, restarts=2, steps=5)
    torch.testing.assert_close(together.latents[1:2], alone.latents, atol=1e-3, rtol=1e-3)
    assert generator.training
    assert all(weight.requires_grad for weight in generator.parameters())
    assert (together.distances <= together.before).all()
