"""What a discriminator is shown of images: augmented, and in noise that fades."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from training.config.domain import DomainConfig
from training.config.experiment import Experiment
from training.pixels.augmentations import AUGMENTATIONS
from training.pixels.ranges import Images


class Augmenter:
    """Alters images float [B, C, H, W] by domain, each by those asked that its domain does not forbid."""

    def __init__(self, domains: Sequence[DomainConfig], asked: Sequence[str]) -> None:
        self._augmentations = {
            domain.name: [AUGMENTATIONS[name] for name in asked if name not in domain.forbidden_augmentations]
            for domain in domains
        }

    def __call__(self, images: Images) -> Images:
        """Return the images altered; gradients go through."""
        altered = dict(images)
        for name in images:
            for augment in self._augmentations[name]:
                altered[name] = augment(altered[name])
        return altered


class View:
    """Alters images float [B, C, H, W] by domain, real and drawn ones alike; gradients go through."""

    def __init__(self, experiment: Experiment) -> None:
        self._augment = Augmenter(experiment.domains, experiment.discriminator.augmentations)
        self._noise = experiment.discriminator.noise
        self._noisy_steps = experiment.discriminator.noise_until * experiment.steps

    def deviation(self, steps_done: int) -> float:
        """Return the noise's standard deviation in the next step, which falls linearly to 0."""
        return self._noise * max(0.0, 1.0 - steps_done / self._noisy_steps)

    def __call__(self, images: Images, steps_done: int) -> Images:
        """Return the images as they are shown in the next step."""
        deviation, images = self.deviation(steps_done), self._augment(images)
        if not deviation:
            return images
        return {name: batch + deviation * torch.randn_like(batch) for name, batch in images.items()}
