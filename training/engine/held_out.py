"""Accuracy of the discriminator on real images that it does not learn from: a gauge of overfitting."""

from __future__ import annotations

import torch

from training.config.experiment import Experiment
from training.engine.batches import DiscriminatorInput
from training.engine.distributed import Processes
from training.engine.state import State
from training.losses.pixels import Images, from_bytes

BATCHES = 4


class HeldOutImages:
    """Held-out images uint8 [N, C, H, W] by domain, given to the discriminator as those that it learns from are."""

    def __init__(self, experiment: Experiment, images: Images, state: State, processes: Processes) -> None:
        self._images, self._state, self._processes = images, state, processes
        self._augment = DiscriminatorInput(experiment)
        self._size, self._range = experiment.batch_size, experiment.image_range
        self._random = torch.Generator()

    @torch.no_grad()
    def accuracy(self) -> dict[str, float]:
        """Return each domain's share of images that count as real: held_out_accuracy/digit.

        Augmented, and in the discriminator's training mode, so that it compares with `real_accuracy`; nothing
        that the next step depends on is changed. All processes call this.
        """
        network, forward = self._state.discriminator, self._state.learners["discriminator"].forward
        self._random.manual_seed(self._state.steps_done)
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]  # batch statistics
        parts: list[Images] = [forward(self._batch()) for _ in range(BATCHES if self._images else 0)]
        for buffer, before in buffers:
            buffer.copy_(before)
        logits = {name: torch.cat([part[name] for part in parts]) for name in self._images}
        shares = self._state.logits.accuracy(logits)
        return {f"held_out_accuracy/{name}": float(self._processes.mean(share)) for name, share in shares.items()}

    def _batch(self) -> Images:
        """Sample this process's share of a batch, which is that of the step and the same in all processes."""
        rows = {
            name: self._processes.share(torch.randint(len(images), (self._size,), generator=self._random))
            for name, images in self._images.items()
        }
        real = {
            name: from_bytes(images[rows[name]].to(self._processes.device), self._range)
            for name, images in self._images.items()
        }
        return self._augment(real, self._state.steps_done)
