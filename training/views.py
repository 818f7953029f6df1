"""What the discriminator is shown of images: augmented, and in noise that fades."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentations import AUGMENTATIONS
from training.config import Experiment
from training.networks import Images


class View:
    """Alters images float [B, C, H, W] by domain, real and drawn ones alike; gradients go through."""

    def __init__(self, experiment: Experiment) -> None:
        asked = experiment.discriminator.augmentations
        self._augmentations = {
            domain.name: [AUGMENTATIONS[name] for name in asked if name not in domain.forbidden_augmentations]
            for domain in experiment.domains
        }
        self._noise = experiment.discriminator.noise
        self._noisy_steps = experiment.discriminator.noise_until * experiment.steps

    def deviation(self, steps_done: int) -> float:
        """Return the noise's standard deviation in the next step, which falls linearly to 0."""
        return self._noise * max(0.0, 1.0 - steps_done / self._noisy_steps)

    def __call__(self, images: Images, steps_done: int) -> Images:
        """Return the images as they are shown in the next step."""
        deviation = self.deviation(steps_done)
        return {name: self._shown(name, batch, deviation) for name, batch in images.items()}

    def _shown(self, name: str, batch: Tensor, deviation: float) -> Tensor:
        for augment in self._augmentations[name]:
            batch = augment(batch)
        return batch + deviation * torch.randn_like(batch) if deviation else batch
