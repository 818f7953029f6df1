"""Inputs of a step: real images, latents, augmentation and noise; held-out images. Axes: B batch, Z latent, C, H, W."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config.data import DomainConfig
from training.config.experiment import Experiment
from training.engine.machine import Processes
from training.engine.state import State
from training.losses.pixels import AUGMENTATIONS, Images, from_bytes


class Batches:
    """Samples whole batches, the same in all processes of a run, and returns this process's share."""

    def __init__(self, experiment: Experiment, images: Images, labels: Images, fabric: Fabric) -> None:
        """Take uint8 `images` [N, C, H, W] by domain, and the `labels` [N] of the labelled ones.

        Raises ConfigError if a batch cannot be split evenly among the processes.
        """
        self._processes = Processes(fabric)
        self._size = experiment.batch_size
        self._auxiliary_size = experiment.classifier.batch_size or experiment.batch_size
        self._processes.check(self._size)
        if experiment.lessons:
            self._processes.check(self._auxiliary_size, "classifier.batch_size")
        self._prior, self._image_range = experiment.latent_prior, experiment.image_range
        self._seed, self._random = experiment.seed, torch.Generator(fabric.device)
        self._images = {name: fabric.to_device(domain) for name, domain in images.items()}
        self._labels = {name: fabric.to_device(classes) for name, classes in labels.items()}
        balanced = [domain.name for domain in experiment.domains if domain.balanced]
        self._weights = {name: _rarities(self._labels[name]) for name in balanced}

    def begin(self, step: int) -> None:
        """Seed the random numbers of a step: those of batches alike in all processes, PyTorch's own differently."""
        self._random.manual_seed(_mixed(self._seed, step))
        torch.manual_seed(_mixed(self._seed, step, 1 + self._processes.rank))

    def real(self) -> Images:
        """Sample real images [B, C, H, W] of each domain, in the generator's range."""
        return self._sample(self._size)[0]

    def labelled(self) -> tuple[Images, Images]:
        """Sample real images for auxiliary losses, and the labels [B] of labelled domains."""
        return self._sample(self._auxiliary_size)

    def latents(self) -> Tensor:
        """Sample latents [B, Z] of the prior."""
        uniform = self._prior.distribution == "uniform"
        sample, shape = torch.rand if uniform else torch.randn, (self._size, self._prior.latent_dim)
        latents = sample(shape, device=self._random.device, generator=self._random)
        return self._processes.share(latents * 2 - 1 if uniform else latents)

    def _sample(self, size: int) -> tuple[Images, Images]:
        batches, classes = {}, {}
        for name, domain in self._images.items():
            rows = self._processes.share(self._rows(name, size))
            batches[name] = from_bytes(domain[rows], self._image_range)
            if name in self._labels:
                classes[name] = self._labels[name][rows]
        return batches, classes

    def _rows(self, name: str, size: int) -> Tensor:
        if name in self._weights:
            return torch.multinomial(self._weights[name], size, replacement=True, generator=self._random)
        return torch.randint(len(self._images[name]), (size,), device=self._random.device, generator=self._random)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _rarities(classes: Tensor) -> Tensor:
    """Return the inverse frequency [N] of each image's class."""
    return 1 / classes.bincount().double()[classes]


class Augmenter:
    """Augments images float [B, C, H, W] by domain, with the augmentations that the domain does not forbid."""

    def __init__(self, domains: Sequence[DomainConfig], names: Sequence[str]) -> None:
        self._augmentations = {
            domain.name: [AUGMENTATIONS[name] for name in names if name not in domain.forbidden_augmentations]
            for domain in domains
        }

    def __call__(self, images: Images) -> Images:
        """Return the augmented images, differentiably."""
        altered = dict(images)
        for name in images:
            for augment in self._augmentations[name]:
                altered[name] = augment(altered[name])
        return altered


class DiscriminatorInput:
    """Augments the discriminator's inputs and adds noise: images float [B, C, H, W] by domain; differentiable."""

    def __init__(self, experiment: Experiment) -> None:
        self._augment = Augmenter(experiment.domains, experiment.discriminator.augmentations)
        self._noise = experiment.discriminator.noise
        self._noisy_steps = experiment.discriminator.noise_until * experiment.steps

    def deviation(self, steps_done: int) -> float:
        """Return the standard deviation of the noise in the next step, which falls linearly to 0."""
        return self._noise * max(0.0, 1.0 - steps_done / self._noisy_steps)

    def __call__(self, images: Images, steps_done: int) -> Images:
        """Return the augmented images of the next step."""
        deviation, images = self.deviation(steps_done), self._augment(images)
        if not deviation:
            return images
        return {name: batch + deviation * torch.randn_like(batch) for name, batch in images.items()}


HELD_OUT_BATCHES = 4


class HeldOutImages:
    """The discriminator's accuracy on held-out images uint8 [N, C, H, W] by domain: a gauge of overfitting."""

    def __init__(self, experiment: Experiment, images: Images, state: State, processes: Processes) -> None:
        self._images, self._state, self._processes = images, state, processes
        self._augment = DiscriminatorInput(experiment)
        self._size, self._range = experiment.batch_size, experiment.image_range
        self._random = torch.Generator()

    @torch.no_grad()
    def accuracy(self) -> dict[str, float]:
        """Return each domain's share of images classified as real: held_out_accuracy/digit.

        Augmented, and in training mode, so that it compares with `real_accuracy`; the state stays as it is. All
        processes call this.
        """
        network, forward = self._state.discriminator, self._state.learners["discriminator"].forward
        self._random.manual_seed(self._state.steps_done)
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]  # batch statistics
        parts: list[Images] = [forward(self._batch()) for _ in range(HELD_OUT_BATCHES if self._images else 0)]
        for buffer, before in buffers:
            buffer.copy_(before)
        logits = {name: torch.cat([part[name] for part in parts]) for name in self._images}
        shares = self._state.logits.accuracy(logits)
        return {f"held_out_accuracy/{name}": float(self._processes.mean(share)) for name, share in shares.items()}

    def _batch(self) -> Images:
        """Sample this process's share of a batch, which is that of the step and the same in all processes."""
        real = {}
        for name, images in self._images.items():
            rows = self._processes.share(torch.randint(len(images), (self._size,), generator=self._random))
            real[name] = from_bytes(images[rows].to(self._processes.device), self._range)
        return self._augment(real, self._state.steps_done)
