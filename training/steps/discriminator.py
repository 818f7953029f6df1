"""The discriminator's update: what tells real images from drawn ones, its penalties and its lessons."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config.discriminator import PenaltyConfig
from training.config.experiment import Experiment
from training.objectives.losses import adversarial_loss, sum_over_domains
from training.objectives.penalties import PENALTIES, PLACES
from training.pixels.ranges import Images
from training.steps.learners import clip_weights, descend
from training.steps.state import State
from training.steps.teaching import Teaching
from training.steps.views import View


class DiscriminatorUpdate:
    """Changes the discriminator once a call. Axes: B batch, C channels, H, W."""

    def __init__(self, experiment: Experiment, state: State, view: View, teaching: Teaching, fabric: Fabric) -> None:
        self._state, self._view, self._teaching, self._fabric = state, view, teaching, fabric
        self._config, self._learner = experiment.discriminator, state.learners["discriminator"]
        labels = self._config.real_label, self._config.fake_label
        self._loss = adversarial_loss(experiment.loss, *labels)

    def __call__(self, shown: Images, drawn: Images) -> None:
        """Learn of real images [B, C, H, W] as the view shows them, and of drawn ones as they are."""
        state = self._state
        loss = self._judging_loss(shown, self._view(drawn, state.steps_done))
        loss = state.means.weigh(loss, self._teaching.costs(drawn, state.steps_done))
        descend(loss, [self._learner], self._fabric)
        if self._config.clip_weights is not None:
            clip_weights(state.discriminator, self._config.clip_weights)

    def _judging_loss(self, real: Images, fake: Images) -> Tensor:
        asked = self._config.all_penalties
        due = [penalty for penalty in asked if self._state.steps_done % penalty.every == 0]
        penalised = {PENALTIES[penalty.name].place for penalty in due}
        places = dict.fromkeys(("real", "fake", *sorted(penalised)))
        images = {place: PLACES[place](real, fake) for place in places}
        logits = {place: self._judge(images[place], place in penalised) for place in places}
        loss = sum_over_domains(self._loss.discriminator, logits["real"], logits["fake"])
        means = {f"{place}_logit": torch.cat(list(logits[place].values())).mean() for place in ("real", "fake")}
        self._state.means.add(discriminator_loss=loss, **means)
        costs = {one.name: (one.weight * one.every, _cost(one, images, logits)) for one in due}
        return self._state.means.weigh(loss, costs)

    def _judge(self, images: Images, penalised: bool) -> Images:
        if not penalised:
            judged: Images = self._learner.forward(images)
            return judged
        # a gradient's gradient wants full precision, which the bare network has
        exact: Images = self._state.discriminator({name: batch.requires_grad_() for name, batch in images.items()})
        return exact


def _cost(asked: PenaltyConfig, images: dict[str, Images], logits: dict[str, Images]) -> Tensor:
    penalty = PENALTIES[asked.name]
    return penalty.cost(images[penalty.place], logits[penalty.place])
