"""Coupled generators and discriminators over any number of domains, built from architectures of the zoo; inversion.

Sharing is by identity: the trunk is one module, so that coupled weights cannot drift apart. It runs once for
all domains, or in a discriminator with batch normalisation once a domain. Axes: B batch, N images, R restarts,
Z latent, C channels, H, W.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from service.latents import draw_latent
from service.metadata import Prior
from training.losses.pixels import RANGES, Images, from_bytes, to_bytes
from training.networks.layers import Architecture, build


class CoupledGenerator(nn.Module):
    """One trunk, and a head for each domain: latents [B, Z] -> {domain: images [B, C, H, W]}."""

    def __init__(
        self,
        architecture: Architecture,
        channels: dict[str, int],
        latent_dim: int,
        width: float,
        shared_layers: int,
        choices: int = 0,
    ) -> None:
        super().__init__()
        self.choices = choices
        shared, own = architecture.layers[:shared_layers], architecture.layers[shared_layers:]
        image = {"image": next(iter(channels.values()))}  # all domains' alike where every layer is shared
        self.trunk, shape = build(shared, (latent_dim, 1, 1), width, image)
        self.heads = nn.ModuleDict(
            {name: build(own, shape, width, {"image": count})[0] for name, count in channels.items()}
        )
        self.image_range = RANGES[architecture.layers[-1].activation]

    def forward(self, latent: Tensor) -> Images:
        """Generate the pairs of latents [B, Z]."""
        features = self._features(latent)
        return {name: head(features) for name, head in self.heads.items()}

    def of_domain(self, domain: str, latent: Tensor) -> Tensor:
        """Generate the images [B, C, H, W] of one domain alone."""
        images: Tensor = self.heads[domain](self._features(latent))
        return images

    def start_from(self, other: CoupledGenerator) -> None:
        """Take the weights of a generator of the same layers, which shares as many of them or more.

        Domains go by their order. A layer that the other shares alone becomes each domain's own.
        """
        for mine, theirs in zip(self.heads.values(), other.heads.values(), strict=True):
            own = [*self.trunk.children(), *mine.children()]
            given = [*other.trunk.children(), *theirs.children()]
            for module, its in zip(own, given, strict=True):
                module.load_state_dict(its.state_dict())

    def _features(self, latent: Tensor) -> Tensor:
        features: Tensor = self.trunk(choose(latent, self.choices)[:, :, None, None])
        return features


def choose(latent: Tensor, choices: int) -> Tensor:
    """Return latents [B, Z] whose first values, `choices` of them, are replaced by a one-hot code of the greatest.

    From a continuous latent, images between two clusters are generated, too (Khayatkhoei et al. 2018, section 3).
    The code is scaled by the square root of its length: its mean square is 1, as a normal prior's. Its gradient is
    that of the values' softmax (Bengio et al. 2013, section 4: straight-through).
    """
    if not choices:
        return latent
    values = latent[:, :choices]
    code = (values.argmax(1, keepdim=True) == torch.arange(choices, device=latent.device)).to(latent.dtype)
    if latent.requires_grad:
        soft = values.softmax(1)
        code = code + (soft - soft.detach())
    return torch.cat([math.sqrt(choices) * code, latent[:, choices:]], 1)


class CoupledEncoder(nn.Module):
    """A stem for each domain, one trunk, and with `own_last` layers a head for each.

    {domain: images [B, C, H, W]} -> {domain: values [B, V]}. Batch normalisation takes the statistics of one
    domain at a time, as in the earlier systems.
    """

    def __init__(
        self,
        architecture: Architecture,
        channels: dict[str, int],
        outputs: dict[str, int],
        width: float,
        shared_layers: int,
        own_last: int = 0,
    ) -> None:
        super().__init__()
        last = len(architecture.layers) - own_last
        first = last - shared_layers
        stems = {
            name: build(architecture.layers[:first], (count, *architecture.size), width, outputs)
            for name, count in channels.items()
        }
        shape = next(shape for _, shape in stems.values())
        self.stems = nn.ModuleDict({name: stem for name, (stem, _) in stems.items()})
        self.trunk, shape = build(architecture.layers[first:last], shape, width, outputs)
        self._normalises = any(layer.norm == "batch" for layer in architecture.layers[first:last])
        self.heads = nn.ModuleDict(
            {name: build(architecture.layers[last:], shape, width, outputs)[0] for name in channels}
        )

    def forward(self, images: Images) -> Images:
        """Encode the images of each domain, [B, C, H, W]; batches may differ in length."""
        parts = self._read(images, self.trunk)
        return {name: self.heads[name](part).flatten(1) for name, part in parts.items()}

    def features(self, images: Images) -> Images:
        """Return the inputs of the last shared layer, for the images of each domain: [B, F]."""
        *_, (_, last) = self.trunk.rows()
        parts = self._read(images, self.trunk[: -len(last)])
        return {name: part.flatten(1) for name, part in parts.items()}

    def _read(self, images: Images, trunk: nn.Module) -> Images:
        stems = {name: self.stems[name](batch) for name, batch in images.items()}
        if self._normalises:
            return {name: trunk(stem) for name, stem in stems.items()}
        parts = trunk(torch.cat(list(stems.values()))).split([len(stem) for stem in stems.values()])
        return dict(zip(images, parts, strict=True))


class CoupledDiscriminator(CoupledEncoder):
    """An encoder of one logit: {domain: images [B, C, H, W]} -> {domain: logits [B]}.

    If there are classes, the last layer has a further output for each, of the same features
    (Liu & Tuzel 2016, section 5).
    """

    def __init__(
        self,
        architecture: Architecture,
        channels: dict[str, int],
        width: float,
        shared_layers: int,
        own_last: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__(architecture, channels, {"logit": 1 + classes}, width, shared_layers, own_last)

    def forward(self, images: Images) -> Images:
        """Return the logits of real against generated images of each domain, [B, C, H, W]."""
        return {name: values[:, 0] for name, values in super().forward(images).items()}

    def classify(self, images: Images) -> Images:
        """Return the logits of the classes of each domain's images, [B, K]."""
        return {name: values[:, 1:] for name, values in super().forward(images).items()}


def latents_of_seeds(prior: Prior, seeds: range) -> Tensor:
    """Return the first latent of each seed, as the service does: float32 [len(seeds), Z]."""
    return torch.from_numpy(np.stack([draw_latent(prior, seed) for seed in seeds]))


@torch.inference_mode()
def generate(generator: CoupledGenerator, latents: Tensor, batch: int = 256) -> Images:
    """Generate the pairs of latents [B, Z] in evaluation mode: {domain: uint8 [B, C, H, W]} on the CPU."""
    was_training, device = generator.training, next(generator.parameters()).device
    generator.eval()
    parts = [
        {name: to_bytes(images, generator.image_range).cpu() for name, images in generator(part.to(device)).items()}
        for part in latents.split(batch)
    ]
    generator.train(was_training)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class AdaptedClassifier(nn.Module):
    """One domain's classifier in a discriminator with classes: uint8 [B, C, H, W] -> logits [B, K]."""

    def __init__(
        self, discriminator: CoupledDiscriminator, domain: str, image_range: tuple[float, float], classes: int
    ) -> None:
        super().__init__()
        self.discriminator, self.classes, self.labelling = discriminator, classes, "classes"
        self._domain, self._range = domain, image_range

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.discriminator.classify({self._domain: from_bytes(images, self._range)})[self._domain]


CANDIDATES = 512  # latents of the first seeds; descent starts at the nearest ones
LATENT_BOUNDS = {"normal": 3.0, "uniform": 1.0}  # greatest absolute value in a latent, by the prior
RATE = 0.1  # Adam's first step size, which falls to nothing along a cosine
INVERSION_BATCH = 16  # images


class Inverted(NamedTuple):
    """The latents found, float32 [N, Z], and the distances [N] of their images to the given ones.

    A distance is the root mean squared difference of values, 1 between black and white; `before` is that of the
    nearest candidate, where the descent starts.
    """

    latents: Tensor
    distances: Tensor
    before: Tensor


def invert(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int, steps: int
) -> Inverted:
    """Invert a generator (Liu & Tuzel 2016, section 5): find the latents of images float [N, C, H, W] of a domain.

    The images are in the generator's range. Adam minimises the squared distance of pixels from several starts for
    each image, the nearest of many candidates; the best result counts. Equal images give equal latents on one machine.
    """
    frozen = [weight for weight in generator.parameters() if weight.requires_grad]
    was_training = generator.training
    generator.eval().requires_grad_(False)
    parts = [_invert(generator, domain, part, prior, restarts, steps) for part in images.split(INVERSION_BATCH)]
    generator.train(was_training)
    for weight in frozen:
        weight.requires_grad_()
    return Inverted(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.enable_grad()  # also if the caller has none
def _invert(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int, steps: int
) -> Inverted:
    low, high = generator.image_range
    starts, before = _starts(generator, domain, images, prior, restarts)
    target = images.repeat_interleave(restarts, 0)
    latents = starts.clone().requires_grad_()
    optimiser = torch.optim.Adam([latents], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        (generator.of_domain(domain, latents) - target).square().mean((1, 2, 3)).sum().backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            latents.clamp_(-LATENT_BOUNDS[prior.distribution], LATENT_BOUNDS[prior.distribution])
    with torch.no_grad():
        squares = (generator.of_domain(domain, latents) - target).square().mean((1, 2, 3))
        distances, best = (squares.sqrt() / (high - low)).reshape(len(images), restarts).min(1)
        found = latents.reshape(len(images), restarts, -1)[torch.arange(len(images)), best]
    return Inverted(found, distances, before)


@torch.no_grad()
def _starts(
    generator: CoupledGenerator, domain: str, images: Tensor, prior: Prior, restarts: int
) -> tuple[Tensor, Tensor]:
    """Return the candidates nearest to each image, [N * R, Z], and the distance of the nearest, [N]."""
    low, high = generator.image_range
    latents = latents_of_seeds(prior, range(max(CANDIDATES, restarts))).to(images)
    generated = torch.cat([generator.of_domain(domain, part) for part in latents.split(64)])
    distances = torch.cdist(images.flatten(1), generated.flatten(1)) / math.sqrt(images[0].numel()) / (high - low)
    nearest = distances.topk(restarts, dim=1, largest=False)
    return latents[nearest.indices.flatten()], nearest.values[:, 0]
