"""The generator's update: what the discriminator says of drawn images, and the couplings."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config.experiment import Experiment
from training.objectives.couplings import Drawn
from training.objectives.losses import LOSSES, sum_over_domains
from training.pixels.ranges import Images
from training.steps.learners import descend
from training.steps.pairing import Pairing
from training.steps.state import State
from training.steps.views import View


class GeneratorUpdate:
    """Changes the generator, and the encoder where there is one, once a call. Axes: B batch, C, H, W."""

    def __init__(self, experiment: Experiment, state: State, view: View, pairing: Pairing, fabric: Fabric) -> None:
        self._state, self._view, self._pairing, self._fabric = state, view, pairing, fabric
        self._loss = LOSSES[experiment.loss]
        self._discriminator = state.learners["discriminator"]
        self._learners = [learner for name, learner in state.learners.items() if name != "discriminator"]

    def __call__(self, shown: Images, drawn: Drawn) -> None:
        """Learn of drawn images with their graph, and of real ones [B, C, H, W] as the view shows them."""
        state = self._state
        state.discriminator.requires_grad_(False)
        loss = self._fooling_loss(shown, self._view(drawn.images, state.steps_done))
        loss = state.means.weigh(loss, self._pairing.apart(drawn, state.share_done))
        descend(loss, self._learners, self._fabric)
        state.discriminator.requires_grad_(True)

    def _fooling_loss(self, real: Images, fake: Images) -> Tensor:
        with torch.no_grad():
            real_logits = self._judge(real) if self._loss.needs_real else dict.fromkeys(fake, torch.empty(0))
        loss = sum_over_domains(self._loss.generator, real_logits, self._judge(fake))
        self._state.means.add(generator_loss=loss)
        return loss

    def _judge(self, images: Images) -> Images:
        logits: Images = self._discriminator.forward(images)
        return logits
