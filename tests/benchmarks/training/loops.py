"""Training steps as the earlier systems write them, on the networks of an experiment.

They differ in what is computed how often. All have 32-bit floats, contiguous images in memory, PyTorch's Adam
as it comes, and the experiment's loss without a penalty.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.config.experiment import Experiment
from training.config.networks import NetworkConfig
from training.engine.state import build_discriminator, build_generator
from training.losses.adversarial import LOSSES
from training.losses.pixels import Images, from_bytes


class Loop:
    """Networks, optimisers and batches, which every loop has alike."""

    def __init__(self, experiment: Experiment, images: Images, device: torch.device) -> None:
        self.batch, self.latent_dim, self.device = experiment.batch_size, experiment.latent_dim, device
        self.images = {name: domain.to(device) for name, domain in images.items()}
        self.loss = LOSSES[experiment.loss]
        self.generator = build_generator(experiment).to(device)
        self.discriminator = build_discriminator(experiment).to(device)
        self.g_optimiser = _adam(self.generator, experiment.generator)
        self.d_optimiser = _adam(self.discriminator, experiment.discriminator)

    def real(self) -> Images:
        """Draw a batch of real images of each domain."""
        counts = {name: len(images) for name, images in self.images.items()}
        rows = {name: torch.randint(count, (self.batch,), device=self.device) for name, count in counts.items()}
        return {name: from_bytes(self.images[name][rows[name]], self.generator.image_range) for name in rows}

    def latents(self) -> Tensor:
        """Draw the latents of a batch, [B, Z]."""
        return torch.randn(self.batch, self.latent_dim, device=self.device)

    def draw_apart(self, latents: Tensor) -> Images:
        """Run the generator of each domain by itself, the shared layers with it."""
        features = latents[:, :, None, None]
        return {name: head(self.generator.trunk(features)) for name, head in self.generator.heads.items()}

    def judge_apart(self, images: Images) -> Images:
        """Run the discriminator of each domain by itself, the shared layers with it."""
        return {name: self.discriminator({name: batch})[name] for name, batch in images.items()}

    def update_discriminator(self, real: Images, fake: Images) -> None:
        """Go a step of the discriminator, from the logits of each domain."""
        costs = [self.loss.discriminator(real[name], fake[name]) for name in real]
        self.d_optimiser.zero_grad()
        torch.stack(costs).mean().backward()
        self.d_optimiser.step()

    def update_generator(self, fake: Images) -> None:
        """Go a step of the generator, from the logits of each domain."""
        costs = [self.loss.generator(logits, logits) for logits in fake.values()]
        self.g_optimiser.zero_grad()
        torch.stack(costs).mean().backward()
        self.g_optimiser.step()


def separate(loop: Loop) -> None:
    """Take a step as with a network for each domain: shared layers run once for each of them."""
    fake = {name: batch.detach() for name, batch in loop.draw_apart(loop.latents()).items()}
    loop.update_discriminator(loop.judge_apart(loop.real()), loop.judge_apart(fake))
    loop.update_generator(loop.judge_apart(loop.draw_apart(loop.latents())))


def official(loop: Loop) -> None:
    """Take a step as the official PyTorch code: domains together, the generator run anew for its update."""
    fake = {name: batch.detach() for name, batch in loop.generator(loop.latents()).items()}
    loop.update_discriminator(loop.discriminator(loop.real()), loop.discriminator(fake))
    loop.update_generator(loop.discriminator(loop.generator(loop.latents())))


def compact(loop: Loop) -> None:
    """Take a step as PyTorch-GAN's version: one run of the generator, whose update comes first."""
    fake = loop.generator(loop.latents())
    loop.update_generator(loop.judge_apart(fake))
    generated = {name: batch.detach() for name, batch in fake.items()}
    loop.update_discriminator(loop.judge_apart(loop.real()), loop.judge_apart(generated))


LOOPS: dict[str, Callable[[Loop], None]] = {"separate": separate, "official": official, "compact": compact}


def _adam(network: torch.nn.Module, config: NetworkConfig) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), config.learning_rate, config.betas)
