"""What a generator draws of latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from service.latents import draw_latent
from service.metadata import Prior
from training.config.experiment import Experiment
from training.engine.state import build_generator
from training.networks.coupled import draw, latents_of_seeds

MakeExperiment = Callable[..., Experiment]


def test_latents_are_the_services() -> None:
    """A seed draws here what the service draws for it."""
    prior = Prior(distribution="uniform", latent_dim=5)
    latents = latents_of_seeds(prior, range(3, 6))
    assert latents.dtype == torch.float32
    assert np.array_equal(latents.numpy(), np.stack([draw_latent(prior, seed) for seed in (3, 4, 5)]))


def test_a_latent_is_drawn_alike_in_any_batch(make_experiment: MakeExperiment) -> None:
    """Drawing is in evaluation mode, whatever mode the generator is in, and leaves it as it was."""
    experiment = make_experiment(("digit", "colour"))
    generator = build_generator(experiment).train()
    latents = latents_of_seeds(experiment.latent_prior, range(5))
    together, apart = draw(generator, latents), draw(generator, latents, batch=2)
    assert generator.training
    assert {name: tuple(images.shape) for name, images in together.items()} == {
        "digit": (5, 1, 28, 28),
        "colour": (5, 3, 28, 28),
    }
    for name, images in together.items():
        assert (images.int() - apart[name].int()).abs().max() <= 1  # sums in another order round differently
