"""A step of a coupled GAN: the two updates, and what they share.

One forward pass of the generator serves both updates: the discriminator takes its images detached, and the
same graph then carries the generator's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config.experiment import Experiment
from training.config.networks import PenaltyConfig
from training.engine.batches import Batches, DiscriminatorInput
from training.engine.distributed import Processes
from training.engine.loss_inputs import AuxiliaryLosses, CouplingLosses
from training.engine.state import State, clip_weights, descend
from training.losses.adversarial import LOSSES, PENALTIES, PLACES, adversarial_loss, sum_over_domains
from training.losses.auxiliary import GeneratedBatch
from training.losses.pixels import Images
from training.pretrained.loss_networks import LossNetworks


class Trainer:
    """The state of one run, and the parts of its steps; `step` is the whole algorithm."""

    def __init__(
        self,
        experiment: Experiment,
        images: Images,
        fabric: Fabric,
        loss_networks: LossNetworks | None = None,
        labels: Images | None = None,
    ) -> None:
        """Initialise the networks. Raises ConfigError if a batch cannot be split evenly among the processes.

        `images`: each domain's training images, uint8 [N, C, H, W]. `loss_networks`: those of each coupling
        loss, by its name and domain. `labels`: the classes [N] of the labelled domains' images.
        """
        self.experiment = experiment
        self.processes = Processes(fabric)
        self._batches = Batches(experiment, images, labels or {}, fabric)
        self.state = state = State(experiment, fabric)
        self._augment = DiscriminatorInput(experiment)
        self._couplings = CouplingLosses(experiment.couplings, state, loss_networks or {}, fabric)
        auxiliary = AuxiliaryLosses(experiment, state, self._batches, fabric)
        self._update_discriminator = DiscriminatorUpdate(experiment, state, self._augment, auxiliary, fabric)
        self._update_generator = GeneratorUpdate(experiment, state, self._augment, self._couplings, fabric)

    def step(self) -> None:
        """Update the discriminator, then the generator, each `updates` times, on a batch of each domain.

        The generator's first update uses the same batch as the discriminator's last.
        """
        self._batches.begin(self.state.steps_done)
        self.state.begin_step()
        for turns_left in reversed(range(self.experiment.discriminator.updates)):
            real = self._batches.real()
            augmented = self._augment(real, self.state.steps_done)
            generated = self._generate(with_graph=not turns_left)
            self._update_discriminator(augmented, {name: batch.detach() for name, batch in generated.images.items()})
        self._update_generator(augmented, replace(generated, real=real))
        for _ in range(self.experiment.generator.updates - 1):
            self._update_generator(augmented, replace(self._generate(), real=real))
        self.state.end_step()

    def _generate(self, with_graph: bool = True) -> GeneratedBatch:
        latents = self._batches.latents()
        with torch.set_grad_enabled(with_graph):
            return self._couplings.generated(latents, self.state.learners["generator"].forward(latents))


class DiscriminatorUpdate:
    """Updates the discriminator, once a call. Axes: B batch, C channels, H, W."""

    def __init__(
        self, experiment: Experiment, state: State, view: DiscriminatorInput, auxiliary: AuxiliaryLosses, fabric: Fabric
    ) -> None:
        self._state, self._augment, self._auxiliary, self._fabric = state, view, auxiliary, fabric
        self._config, self._learner = experiment.discriminator, state.learners["discriminator"]
        self._normalises = any(layer.norm == "batch" for layer in experiment.discriminator_table.layers)
        labels = self._config.real_label, self._config.fake_label
        self._loss = adversarial_loss(experiment.loss, *labels)

    def __call__(self, augmented: Images, generated: Images) -> None:
        """Update on augmented real images [B, C, H, W] and on generated ones, not yet augmented."""
        state = self._state
        loss = self._discriminator_loss(augmented, self._augment(generated, state.steps_done))
        loss = state.means.weigh(loss, self._auxiliary.losses(generated, state.steps_done))
        descend(loss, [self._learner], self._fabric)
        if self._config.clip_weights is not None:
            clip_weights(state.discriminator, self._config.clip_weights)

    def _discriminator_loss(self, real: Images, fake: Images) -> Tensor:
        config = self._config.all_penalties
        due = [penalty for penalty in config if self._state.steps_done % penalty.every == 0]
        penalised = {PENALTIES[penalty.name].place for penalty in due}
        places = dict.fromkeys(("real", "fake", *sorted(penalised)))
        images = {place: PLACES[place](real, fake) for place in places}
        plain = {place: images[place] for place in images if place not in penalised}
        logits = self._judge(plain) | {place: self._exact_logits(images[place]) for place in sorted(penalised)}
        loss = sum_over_domains(self._loss.discriminator, logits["real"], logits["fake"])
        self._state.means.add(discriminator_loss=loss)
        self._state.logits.add(logits["real"], logits["fake"])
        costs = {one.name: (one.weight * one.every, _cost(one, images, logits)) for one in due}
        return self._state.means.weigh(loss, costs)

    def _judge(self, images: Mapping[str, Images]) -> dict[str, Images]:
        """Return the logits of images by place: in one forward pass, or one a place if it normalises over a batch."""
        if self._normalises or len(images) < 2:
            return {place: self._learner.forward(batches) for place, batches in images.items()}
        names, *_ = map(tuple, images.values())
        together = self._learner.forward({name: torch.cat([one[name] for one in images.values()]) for name in names})
        lengths = [len(next(iter(one.values()))) for one in images.values()]
        parts = {name: logits.split(lengths) for name, logits in together.items()}
        return {place: {name: parts[name][number] for name in names} for number, place in enumerate(images)}

    def _exact_logits(self, images: Images) -> Images:
        # a gradient's gradient needs full precision, which the bare network has
        logits: Images = self._state.discriminator({name: batch.requires_grad_() for name, batch in images.items()})
        return logits


def _cost(config: PenaltyConfig, images: dict[str, Images], logits: dict[str, Images]) -> Tensor:
    penalty = PENALTIES[config.name]
    return penalty.cost(images[penalty.place], logits[penalty.place])


class GeneratorUpdate:
    """Updates the generator, and the encoder if there is one, once a call. Axes: B batch, C, H, W."""

    def __init__(
        self, experiment: Experiment, state: State, view: DiscriminatorInput, couplings: CouplingLosses, fabric: Fabric
    ) -> None:
        self._state, self._augment, self._couplings, self._fabric = state, view, couplings, fabric
        self._loss = LOSSES[experiment.loss]
        self._discriminator = state.learners["discriminator"]
        self._learners = [learner for name, learner in state.learners.items() if name != "discriminator"]

    def __call__(self, augmented: Images, generated: GeneratedBatch) -> None:
        """Update on generated images with their graph, and on augmented real ones [B, C, H, W]."""
        state = self._state
        state.discriminator.requires_grad_(False)
        loss = self._generator_loss(augmented, self._augment(generated.images, state.steps_done))
        loss = state.means.weigh(loss, self._couplings.losses(generated, state.share_done))
        descend(loss, self._learners, self._fabric)
        state.discriminator.requires_grad_(True)

    def _generator_loss(self, real: Images, fake: Images) -> Tensor:
        with torch.no_grad():
            real_logits = self._logits(real) if self._loss.needs_real else dict.fromkeys(fake, torch.empty(0))
        loss = sum_over_domains(self._loss.generator, real_logits, self._logits(fake))
        self._state.means.add(generator_loss=loss)
        return loss

    def _logits(self, images: Images) -> Images:
        logits: Images = self._discriminator.forward(images)
        return logits
