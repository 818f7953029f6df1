"""What lessons have made of a discriminator: a classifier of each domain's images."""

from __future__ import annotations

from torch import Tensor, nn

from training.networks.coupled import CoupledDiscriminator
from training.pixels.ranges import from_bytes


class AdaptedClassifier(nn.Module):
    """A domain's way through a discriminator: images uint8 [B, C, H, W] -> logits of the classes [B, K]."""

    def __init__(
        self,
        discriminator: CoupledDiscriminator,
        domain: str,
        image_range: tuple[float, float],
        classes: int,
    ) -> None:
        super().__init__()
        self.discriminator, self.classes, self.labelling = discriminator, classes, "classes"
        self._domain, self._range = domain, image_range

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.discriminator.classify({self._domain: from_bytes(images, self._range)})[self._domain]
