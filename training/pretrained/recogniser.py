"""A network that tells the domains of an experiment apart. It learns from their images alone, without labels.

The one that measures whether generated images of two domains differ as real ones do, and the one that a coupling loss
asks, are of different architectures and seeds. Axes: N images, B batch, D domains, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from training.losses.pixels import AUGMENTATIONS, Images, between_ranges, from_bytes
from training.networks.layers import Layer, build
from training.pretrained.classifier import RANGE, train_once

BATCH = 16  # images of each domain
STEPS = 1000
translate = AUGMENTATIONS["translation"]


@dataclass(frozen=True)
class Kind:
    """Layers, for images of any size, and training of a recogniser."""

    layers: Sequence[Layer]
    seed: int
    times: int = 1
    """Its training steps, in multiples of STEPS."""
    noise: float = 0.0
    """Standard deviation of the noise on its training images, in RANGE."""


MEASURING = Kind(
    (
        *(Layer("conv", out, 3, 2, 1, norm="batch", activation="relu") for out in (16, 32, 64)),
        Layer("conv", 128, 3, 2, 1, norm="batch", activation="relu", dropout=0.5),
        Layer("linear", "classes"),
    ),
    seed=0,
)
COUPLING = Kind(
    (
        *(Layer("conv", out, 4, 2, 1, norm="batch", activation="leaky_relu") for out in (16, 32, 64)),
        Layer("conv", 96, 4, 2, 1, norm="batch", activation="leaky_relu", dropout=0.5),
        Layer("linear", "classes"),
    ),
    seed=1,
    times=2,
    noise=0.1,
)


class DomainRecogniser(nn.Module):
    """Images float [B, C, H, W] in RANGE, grey or RGB -> logits [B, D] of the domains."""

    def __init__(self, training: Images, device: torch.device, kind: Kind = MEASURING) -> None:
        """Learn from the training images uint8 [N, C, H, W] of the domains; the result is the same every time."""
        super().__init__()
        self.names = list(training)
        domains = [images.expand(-1, 3, -1, -1) for images in training.values()]
        height, width = domains[0].shape[2:]
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(kind.seed)
            self.network, _ = build(kind.layers, (3, height, width), 1.0, {"classes": len(domains)})
            self.to(device)
            train_once(self, lambda: self._loss(domains, kind.noise, device), kind.times * STEPS)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(images.expand(-1, 3, -1, -1)).flatten(1)  # type: ignore[no-any-return]

    def _loss(self, domains: Sequence[Tensor], noise: float, device: torch.device) -> Tensor:
        """Return the cross entropy of a batch with as many images of each domain, translated a little."""
        drawn = torch.cat([own[torch.randint(len(own), (BATCH,))] for own in domains])
        images = translate(from_bytes(drawn.to(device), RANGE))
        owners = torch.arange(len(domains), device=device).repeat_interleave(BATCH)
        return cross_entropy(self(images + noise * torch.randn_like(images) if noise else images), owners)

    @torch.inference_mode()
    def share(self, domain: str, images: Tensor) -> float:
        """Return the share of images uint8 [N, C, H, W] that it takes for the domain's own."""
        device = next(self.parameters()).device
        parts = [self(from_bytes(part.to(device), RANGE)).argmax(1) for part in images.split(256)]
        return float((torch.cat(parts) == self.names.index(domain)).float().mean())


class OwnDomain(nn.Module):
    """Log probability that images are of one domain, as a coupling loss needs it."""

    def __init__(self, recogniser: DomainRecogniser, domain: str) -> None:
        super().__init__()
        self.recogniser, self.domain = recogniser, domain

    def of_range(self, image_range: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return a differentiable function from images of that range to log probabilities [B] of their own domain.

        They are translated as its training images were, each time differently: so that no single pattern fools it.
        """
        moved, place = between_ranges(image_range, RANGE), self.recogniser.names.index(self.domain)
        return lambda images: log_softmax(self.recogniser(translate(moved(images))).float(), 1)[:, place]
