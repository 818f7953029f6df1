"""Encoders of a trained generator: an image of any domain -> a latent, whose images are its counterparts.

The generator is frozen. In each of several passes an encoder takes an image and its reconstruction from the current
latent, and returns what to add to that latent (ReStyle: Alaluf et al. 2021, section 3.1); the first latent is the
prior's mean. It learns from generated images, whose latents are known, and from real ones through the generator.
Axes: B batch, C channels, H, W, Z latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.metadata import Name
from training.config import Positive, Weight
from training.config.experiment import Experiment
from training.errors import ConfigError
from training.losses.pixels import Images, from_bytes
from training.networks.coupled import CoupledDiscriminator, CoupledEncoder, CoupledGenerator
from training.networks.layers import Architecture, Layer
from training.networks.weights import initialise

SMALLEST = 4  # side of the last convolution's output
MAX_CHANNELS = 256
TRIED = 4  # choices of a latent, in each pass


@dataclass(frozen=True)
class EncoderRecipe:
    """Architecture, losses and length of an encoder's training."""

    steps: Positive = 20_000
    """Updates."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Generated and real images of each domain in a step."""
    channels: Positive = 48
    """Channels of the first convolution; each one that halves the sides doubles them, up to 256."""
    dense: Positive = 512
    """Values of a dense layer after the convolutions."""
    dense_layers: Positive = 1
    """Such layers. To undo a generator's own dense layers takes more than one."""
    domains: tuple[Name, ...] = ()
    """Domains whose images are encoded; none for all."""
    passes: Positive = 3
    """Forward passes that are trained; how many are exported is measured, of up to twice as many."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Of Adam; it falls to nothing along half a cosine."""
    latent_weight: Weight = 1.0
    """Of the squared distance to the known latents of generated images."""
    pixel_weight: Weight = 10.0
    """Of the squared distance between real images and their reconstructions, in a range of 2."""
    feature_weight: Weight = 1.0
    """Of the squared distance between their features in the run's discriminator, which saw no labels."""
    prior_weight: Weight = 1.0
    """Of the distance between the latents' norm and that of the prior."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes weights and batches."""


def encoder_architecture(size: tuple[int, int], recipe: EncoderRecipe) -> Architecture:
    """Return 3x3 convolutions that halve the sides down to 4 or less, and dense layers, for images of any size."""
    channels, side = recipe.channels, max(size)
    layers = [Layer("conv", channels, 5, 1, 2, activation="leaky_relu")]
    while side > SMALLEST:
        channels, side = min(2 * channels, MAX_CHANNELS), (side + 1) // 2
        layers.append(Layer("conv", channels, 3, 2, "same", activation="leaky_relu"))
    layers += [Layer("linear", recipe.dense, activation="leaky_relu")] * recipe.dense_layers
    layers.append(Layer("linear", "latent"))
    return Architecture("an encoder of images of this size", size, tuple(layers))


class LatentEncoder(nn.Module):
    """A coupled encoder and the frozen generator that it inverts."""

    def __init__(self, generator: CoupledGenerator, experiment: Experiment, recipe: EncoderRecipe) -> None:
        """Build the networks. Raises ConfigError if a domain of the recipe is not in the experiment."""
        super().__init__()
        known = [domain.name for domain in experiment.domains]
        if unknown := set(recipe.domains) - set(known):
            raise ConfigError(f"recipe.domains = {', '.join(sorted(unknown))}: must be of {', '.join(known)}")
        own = [domain for domain in experiment.domains if domain.name in recipe.domains or not recipe.domains]
        self.domains = [domain.name for domain in own]
        self.generator = generator.eval().requires_grad_(False)
        self.prior, self.passes = experiment.latent_prior, recipe.passes
        self.image_range = generator.image_range
        channels = {domain.name: 2 * domain.channels for domain in own}  # of the image and its reconstruction
        architecture = encoder_architecture(experiment.size, recipe)
        outputs = {"latent": self.prior.latent_dim}
        self.encoder = CoupledEncoder(architecture, channels, outputs, 1.0, len(architecture.layers) - 1)
        initialise(self.encoder, "he", 0.0, None)

    def iterates(self, images: Images) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """Yield latents [B, Z] and their reconstructions [B, C, H, W] for the images of each domain, pass by pass.

        Images are float, in the generator's range. Gradients end at the latent that a pass begins with.
        """
        latents = {name: batch.new_zeros(len(batch), self.prior.latent_dim) for name, batch in images.items()}
        reconstructed = {name: self.reconstruct(name, latents[name]) for name in images}
        for _ in range(self.passes):
            latents = self.refine(images, {name: batch.detach() for name, batch in reconstructed.items()}, latents)
            reconstructed = {name: self.reconstruct(name, latents[name]) for name in images}
            yield {name: (latents[name], reconstructed[name]) for name in images}

    def refine(self, images: Images, reconstructed: Images, latents: Images) -> Images:
        """Return the latents [B, Z] after one more pass, from the latents of `reconstructed`."""
        seen = {name: torch.cat([images[name], reconstructed[name]], dim=1) for name in images}
        moved = {name: latents[name].detach() + more for name, more in self.encoder(seen).items()}
        if self.prior.distribution == "uniform":
            return {name: batch.clamp(-1, 1) for name, batch in moved.items()}
        return moved

    def reconstruct(self, domain: str, latents: Tensor) -> Tensor:
        """Return the images [B, C, H, W] of a domain for latents [B, Z]."""
        return self.generator.of_domain(domain, latents)

    @torch.inference_mode()
    def encode(self, domain: str, images: Tensor, passes: int | None = None, batch: int = 256) -> tuple[Tensor, Tensor]:
        """Return latents [N, K, Z] and errors [N, K] after each pass, for images uint8 [N, C, H, W] of a domain.

        The error is the root of the mean squared difference to the reconstruction, in levels of 0 to 255.
        """
        device, (low, high) = next(self.encoder.parameters()).device, self.image_range
        latents, errors = [], []
        for part in images.split(batch):
            real = from_bytes(part.to(device), self.image_range)
            found = [real.new_zeros(len(real), self.prior.latent_dim)]
            for _ in range(passes or self.passes):
                found.append(self.improve(domain, real, found[-1]))
            latents.append(torch.stack(found[1:], 1).cpu())
            squares = torch.stack([_squares(real, self.reconstruct(domain, latent)) for latent in found[1:]], 1)
            errors.append(squares.sqrt().cpu() * 255 / (high - low))
        return torch.cat(latents), torch.cat(errors)

    def improve(self, domain: str, images: Tensor, latents: Tensor) -> Tensor:
        """Return the latents [B, Z] of images [B, C, H, W] of a domain after one more pass, as it is exported.

        Where the greatest of the first values alone counts, the likeliest few of them are tried: each is refined once
        with its choice held, and the latent that reconstructs an image best is taken, that before the pass included.
        """
        reconstructed = self.reconstruct(domain, latents)
        moved = self._refine_one(domain, images, reconstructed, latents)
        if not (choices := self.generator.choices):
            return moved
        likeliest = moved[:, :choices].topk(min(TRIED, choices)).indices  # [B, T]
        chosen, times = likeliest.flatten(), likeliest.shape[1]
        given = images.repeat_interleave(times, 0)
        held = _hold(moved.repeat_interleave(times, 0), chosen, choices)  # [B * T, Z]
        held_images = self.reconstruct(domain, held)
        refined = _hold(self._refine_one(domain, given, held_images, held), chosen, choices)
        refined_images = self.reconstruct(domain, refined)
        tried = [(images, reconstructed, latents), (given, held_images, held), (given, refined_images, refined)]
        rows = [len(images), -1]
        squares = torch.cat([_squares(*pair).unflatten(0, rows) for *pair, _ in tried], 1)
        found = torch.cat([one.unflatten(0, rows) for *_, one in tried], 1)  # [B, 1 + 2T, Z]
        return found[torch.arange(len(found)), squares.argmin(1)]

    def _refine_one(self, domain: str, images: Tensor, reconstructed: Tensor, latents: Tensor) -> Tensor:
        return self.refine({domain: images}, {domain: reconstructed}, {domain: latents})[domain]


def _squares(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Return the mean squared difference [B] of images and reconstructions, [B, C, H, W]."""
    return (images - reconstructed).flatten(1).square().mean(1)


def _hold(latents: Tensor, chosen: Tensor, choices: int) -> Tensor:
    """Return latents [B, Z] of which the value `chosen` [B] is the greatest of the first `choices`."""
    values = latents[:, :choices]
    raised = values.amax(1, keepdim=True) + 1.0
    held = chosen[:, None] == torch.arange(choices, device=latents.device)
    return torch.cat([torch.where(held, raised, values), latents[:, choices:]], 1)


class EncoderLoss:
    """The loss of a step, and its parts."""

    def __init__(
        self, encoder: LatentEncoder, discriminator: CoupledDiscriminator | None, recipe: EncoderRecipe
    ) -> None:
        """Compare features of the discriminator too, if there is one."""
        self._encoder, self._recipe = encoder, recipe
        self._discriminator = discriminator and discriminator.eval().requires_grad_(False)
        low, high = encoder.image_range
        self._scale = 2.0 / (high - low)

    def __call__(self, latents: Tensor, real: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of known latents [B, Z] and of real images [B, C, H, W] in the generator's range."""
        with torch.no_grad():
            generated = self._encoder.generator(latents)
        images = {name: torch.cat([generated[name], real[name]]) for name in self._encoder.domains}
        parts: dict[str, Tensor] = {}
        for step in self._encoder.iterates(images):
            for name, (found, reconstructed) in step.items():
                known = len(latents)
                costs = {
                    "latent": self._latent(found[:known], latents),
                    "pixel": ((reconstructed[known:] - real[name]) * self._scale).square().mean(),
                    "feature": self._feature(name, real[name], reconstructed[known:]),
                    "prior": self._prior(found[known:]),
                }
                parts = {part: parts.get(part, 0.0) + cost for part, cost in costs.items()}
        weighted = (getattr(self._recipe, f"{name}_weight") * part for name, part in parts.items())
        return sum(weighted, latents.new_zeros(())), parts

    def _latent(self, found: Tensor, latents: Tensor) -> Tensor:
        """Return the squared distance of latents [B, Z]; where the greatest value alone counts, the cross entropy."""
        choices = self._encoder.generator.choices
        distance = (found - latents)[:, choices:].square().mean()
        if not choices:
            return distance
        return distance + cross_entropy(found[:, :choices], latents[:, :choices].argmax(1))

    def _feature(self, domain: str, real: Tensor, reconstructed: Tensor) -> Tensor:
        if not self._discriminator:
            return reconstructed.new_zeros(())
        with torch.no_grad():
            wanted = self._discriminator.features({domain: real})[domain]
        found = self._discriminator.features({domain: reconstructed})[domain]
        return (found - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)

    def _prior(self, latents: Tensor) -> Tensor:
        variance = 1.0 if self._encoder.prior.distribution == "normal" else 1 / 3
        values = latents[:, self._encoder.generator.choices :]
        return (values.square().mean(1) / variance - 1).square().mean()


def descend(
    encoder: LatentEncoder, domain: str, images: Tensor, latents: Tensor, steps: int, rate: float = 0.03
) -> Tensor:
    """Return latents [N, Z] moved by descent on the squared distance to images uint8 [N, C, H, W] of a domain.

    That is Liu & Tuzel 2016, section 5 (cross-domain image transformation), from `latents` [N, Z] on.
    """
    real = from_bytes(images, encoder.image_range)
    moved = latents.clone().requires_grad_()
    optimiser = torch.optim.Adam([moved], rate)
    for _ in range(steps):
        loss = (encoder.reconstruct(domain, moved) - real).square().flatten(1).mean(1).sum()
        (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimiser.step()
    return moved.detach()
