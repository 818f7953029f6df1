"""A step of a coupled GAN: the two updates, and what they share.

One forward of the generator serves both updates: its images, cut from the graph, teach the discriminator,
and the same graph then carries the generator's gradient.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config.experiment import Experiment
from training.config.networks import PenaltyConfig
from training.engine.batches import Batches, View
from training.engine.distributed import Processes
from training.engine.loss_inputs import Pairing, Teaching
from training.engine.state import State, clip_weights, descend
from training.losses.adversarial import LOSSES, PENALTIES, PLACES, adversarial_loss, sum_over_domains
from training.losses.coupling import Drawn
from training.losses.pixels import Images
from training.pretrained.loss_networks import Couplers


class Trainer:
    """The state of one run, and the parts of its steps; `step` is the whole algorithm."""

    def __init__(
        self,
        experiment: Experiment,
        images: Images,
        fabric: Fabric,
        couplers: Couplers | None = None,
        labels: Images | None = None,
    ) -> None:
        """Draw the networks anew. Raises ConfigError where processes cannot share a batch out evenly.

        `images`: what each domain learns from, uint8 [N, C, H, W]. `couplers`: the networks that each
        coupling asks, by its name and domain. `labels`: the classes [N] of the labelled domains' images.
        """
        self.experiment = experiment
        self.processes = Processes(fabric)
        self._batches = Batches(experiment, images, labels or {}, fabric)
        self.state = state = State(experiment, fabric)
        self._view = View(experiment)
        self._pairing = Pairing(experiment.couplings, state, couplers or {}, fabric)
        teaching = Teaching(experiment, state, self._batches, fabric)
        self._teach_discriminator = DiscriminatorUpdate(experiment, state, self._view, teaching, fabric)
        self._teach_generator = GeneratorUpdate(experiment, state, self._view, self._pairing, fabric)

    def step(self) -> None:
        """Update the discriminator, then the generator, each as often as it asks, on a batch of each domain.

        The generator's first update goes on with what the discriminator's last was taught on.
        """
        self._batches.begin(self.state.steps_done)
        self.state.begin_step()
        for turns_left in reversed(range(self.experiment.discriminator.updates)):
            real = self._batches.real()
            shown = self._view(real, self.state.steps_done)
            drawn = self._draw(with_graph=not turns_left)
            self._teach_discriminator(shown, {name: batch.detach() for name, batch in drawn.images.items()})
        self._teach_generator(shown, replace(drawn, real=real))
        for _ in range(self.experiment.generator.updates - 1):
            self._teach_generator(shown, replace(self._draw(), real=real))
        self.state.end_step()

    def _draw(self, with_graph: bool = True) -> Drawn:
        latents = self._batches.latents()
        with torch.set_grad_enabled(with_graph):
            return self._pairing.drawn(latents, self.state.learners["generator"].forward(latents))


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
