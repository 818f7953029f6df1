"""Coupled generators and discriminators over any number of domains, built from tables of layers.

Sharing is by identity: the trunk is one module, run once for all domains, so that coupled weights
cannot drift apart. Axes: B batch, Z latent, C channels, H, W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.architectures import Table
from training.rows import build

Images = dict[str, Tensor]

RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of a last activation, and so of the images


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
        """Draw the pairs of latents [B, Z]."""
        features = self.trunk(latent[:, :, None, None])
        return {name: head(features) for name, head in self.heads.items()}


class CoupledEncoder(nn.Module):
    """A stem for each domain, and one trunk: {domain: images [B, C, H, W]} -> {domain: values [B, V]}."""

    def __init__(
        self,
        table: Table,
        channels: dict[str, int],
        outputs: dict[str, int],
        width: float,
        shared_layers: int,
    ) -> None:
        super().__init__()
        border = len(table.layers) - shared_layers
        own, shared = table.layers[:border], table.layers[border:]
        stems, shapes = {}, []
        for name, count in channels.items():
            stems[name], shape = build(own, (count, *table.size), width, outputs)
            shapes.append(shape)
        self.stems = nn.ModuleDict(stems)
        self.trunk, _ = build(shared, shapes[0], width, outputs)

    def forward(self, images: Images) -> Images:
        """Read the images of each domain, [B, C, H, W]; batches may differ in length."""
        features = [self.stems[name](batch) for name, batch in images.items()]
        values = self.trunk(torch.cat(features)).flatten(1)
        return dict(zip(images, values.split([len(batch) for batch in images.values()]), strict=True))


class CoupledDiscriminator(CoupledEncoder):
    """An encoder of one value: {domain: images [B, C, H, W]} -> {domain: logits [B]}."""

    def __init__(self, table: Table, channels: dict[str, int], width: float, shared_layers: int) -> None:
        super().__init__(table, channels, {"logit": 1}, width, shared_layers)

    def forward(self, images: Images) -> Images:
        """Judge the images of each domain, [B, C, H, W]; batches may differ in length."""
        return {name: values.flatten() for name, values in super().forward(images).items()}
