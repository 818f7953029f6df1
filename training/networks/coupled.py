"""Coupled generators and discriminators over any number of domains, built from architectures of the zoo.

Sharing is by identity: the trunk is one module, so that coupled weights cannot drift apart. It runs once for
all domains, or in a discriminator with batch normalisation once a domain. Axes: B batch, Z latent,
C channels, H, W.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from service.latents import draw_latent
from service.metadata import Prior
from training.losses.pixels import RANGES, Images, from_bytes, to_bytes
from training.networks.layers import build
from training.zoo import Table


class CoupledGenerator(nn.Module):
    """One trunk, and a head for each domain: latents [B, Z] -> {domain: images [B, C, H, W]}."""

    def __init__(
        self, table: Table, channels: dict[str, int], latent_dim: int, width: float, shared_layers: int
    ) -> None:
        super().__init__()
        shared, own = table.layers[:shared_layers], table.layers[shared_layers:]
        image = {"image": next(iter(channels.values()))}  # all domains' alike where every layer is shared
        self.trunk, shape = build(shared, (latent_dim, 1, 1), width, image)
        self.heads = nn.ModuleDict(
            {name: build(own, shape, width, {"image": count})[0] for name, count in channels.items()}
        )
        self.image_range = RANGES[table.layers[-1].activation]

    def forward(self, latent: Tensor) -> Images:
        """Generate the pairs of latents [B, Z]."""
        features = self.trunk(latent[:, :, None, None])
        return {name: head(features) for name, head in self.heads.items()}


class CoupledEncoder(nn.Module):
    """A stem for each domain, one trunk, and with `own_last` layers a head for each.

    {domain: images [B, C, H, W]} -> {domain: values [B, V]}. Batch normalisation takes the statistics of one
    domain at a time, as in the earlier systems.
    """

    def __init__(
        self,
        table: Table,
        channels: dict[str, int],
        outputs: dict[str, int],
        width: float,
        shared_layers: int,
        own_last: int = 0,
    ) -> None:
        super().__init__()
        last = len(table.layers) - own_last
        first = last - shared_layers
        stems = {
            name: build(table.layers[:first], (count, *table.size), width, outputs) for name, count in channels.items()
        }
        shape = next(shape for _, shape in stems.values())
        self.stems = nn.ModuleDict({name: stem for name, (stem, _) in stems.items()})
        self.trunk, shape = build(table.layers[first:last], shape, width, outputs)
        self._normalises = any(layer.norm == "batch" for layer in table.layers[first:last])
        self.heads = nn.ModuleDict({name: build(table.layers[last:], shape, width, outputs)[0] for name in channels})

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
        table: Table,
        channels: dict[str, int],
        width: float,
        shared_layers: int,
        own_last: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__(table, channels, {"logit": 1 + classes}, width, shared_layers, own_last)

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
    parts = [_to_bytes(generator(part.to(device)), generator.image_range) for part in latents.split(batch)]
    generator.train(was_training)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _to_bytes(images: Images, image_range: tuple[float, float]) -> Images:
    return {name: to_bytes(batch, image_range).cpu() for name, batch in images.items()}


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
