"""A step of a coupled GAN: the two updates, and the coupling and auxiliary losses with their inputs.

One forward pass of the generator serves both updates: the discriminator takes its images detached, and the
same graph then carries the generator's gradient. Axes: B batch, Z latent, K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.config.networks import CouplingConfig
from training.data.dataset import require_labels
from training.engine.batches import Augmenter, Batches, DiscriminatorInput
from training.engine.machine import Processes
from training.engine.state import State, WeightedLosses, clip_weights, descend
from training.errors import DataError
from training.losses.adversarial import LOSSES, PENALTIES, PLACES, adversarial_loss, sum_over_domains
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS, AuxiliaryInputs, CouplingInputs, GeneratedBatch
from training.losses.pixels import Images
from training.networks.layers import Layers
from training.pretrained.features import LossNetworks


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

        The generator's first update uses the same batch as the discriminator's last. In the first steps the
        discriminator may learn alone.
        """
        alone = self.state.discriminator_is_alone
        self._batches.begin(self.state.steps_done)
        self.state.begin_step()
        for turns_left in reversed(range(self.experiment.discriminator.updates)):
            real = self._batches.real()
            augmented = self._augment(real, self.state.steps_done)
            generated = self._generate(with_graph=not (turns_left or alone))
            self._update_discriminator(augmented, {name: batch.detach() for name, batch in generated.images.items()})
        for turn in range(0 if alone else self.experiment.generator.updates):
            self._update_generator(augmented, replace(self._generate() if turn else generated, real=real))
        self.state.end_step()

    def _generate(self, with_graph: bool = True) -> GeneratedBatch:
        latents = self._batches.latents()
        with torch.set_grad_enabled(with_graph):
            return self._couplings.generated(latents, self.state.learners["generator"].forward(latents))


class DiscriminatorUpdate:
    """Updates the discriminator, once a call."""

    def __init__(
        self,
        experiment: Experiment,
        state: State,
        augment: DiscriminatorInput,
        auxiliary: AuxiliaryLosses,
        fabric: Fabric,
    ) -> None:
        self._state, self._augment, self._auxiliary, self._fabric = state, augment, auxiliary, fabric
        self._config, self._learner = experiment.discriminator, state.learners["discriminator"]
        self._normalises = any(layer.norm == "batch" for layer in experiment.architecture("discriminator").layers)
        self._loss = adversarial_loss(experiment.loss, self._config.real_label, self._config.fake_label)

    def __call__(self, augmented: Images, generated: Images) -> None:
        """Update on augmented real images [B, C, H, W] and on generated ones, not yet augmented."""
        state = self._state
        loss = self._discriminator_loss(augmented, self._augment(generated, state.steps_done))
        loss = state.means.weigh(loss, self._auxiliary.losses(generated, state.steps_done))
        descend(loss, [self._learner], self._fabric)
        if self._config.clip_weights is not None:
            clip_weights(state.discriminator, self._config.clip_weights)

    def _discriminator_loss(self, real: Images, fake: Images) -> Tensor:
        state, costs = self._state, {}
        due = [penalty for penalty in self._config.all_penalties if state.steps_done % penalty.every == 0]
        penalised = sorted({PENALTIES[penalty.name].place for penalty in due})
        images = {place: PLACES[place](real, fake) for place in dict.fromkeys(("real", "fake", *penalised))}
        logits = self._logits_by_place({place: images[place] for place in images if place not in penalised})
        logits |= {place: self._exact_logits(images[place]) for place in penalised}
        loss = sum_over_domains(self._loss.discriminator, logits["real"], logits["fake"])
        state.means.add(discriminator_loss=loss)
        state.logits.add(logits["real"], logits["fake"])
        for one in due:
            penalty = PENALTIES[one.name]
            cost = penalty.cost(images[penalty.place], logits[penalty.place])
            costs[one.name] = one.weight_after(state.share_done), cost
        return state.means.weigh(loss, costs)

    def _logits_by_place(self, images: Mapping[str, Images]) -> dict[str, Images]:
        """Return the logits of images by place, in one forward pass if the network does not normalise over a batch."""
        if self._normalises or len(images) < 2:
            return {place: self._learner.forward(batches) for place, batches in images.items()}
        parts = list(images.values())
        together = self._learner.forward({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        lengths = [len(next(iter(part.values()))) for part in parts]
        apart = zip(*(logits.split(lengths) for logits in together.values()), strict=True)
        return {place: dict(zip(together, row, strict=True)) for place, row in zip(images, apart, strict=True)}

    def _exact_logits(self, images: Images) -> Images:
        # a gradient's gradient needs full precision, which the bare network has
        logits: Images = self._state.discriminator({name: batch.requires_grad_() for name, batch in images.items()})
        return logits


class GeneratorUpdate:
    """Updates the generator, and the encoder if there is one, once a call."""

    def __init__(
        self,
        experiment: Experiment,
        state: State,
        augment: DiscriminatorInput,
        couplings: CouplingLosses,
        fabric: Fabric,
    ) -> None:
        self._state, self._augment, self._couplings, self._fabric = state, augment, couplings, fabric
        self._loss = LOSSES[experiment.loss]
        self._discriminator = state.learners["discriminator"]
        self._learners = [learner for name, learner in state.learners.items() if name != "discriminator"]

    def __call__(self, augmented: Images, generated: GeneratedBatch) -> None:
        """Update on generated images with their graph, and on augmented real ones [B, C, H, W]."""
        state, judge = self._state, self._discriminator.forward
        state.discriminator.requires_grad_(False)
        fake = self._augment(generated.images, state.steps_done)
        with torch.no_grad():
            real_logits = judge(augmented) if self._loss.needs_real else dict.fromkeys(fake, torch.empty(0))
        loss = sum_over_domains(self._loss.generator, real_logits, judge(fake))
        state.means.add(generator_loss=loss)
        loss = state.means.weigh(loss, self._couplings.losses(generated, state.share_done))
        descend(loss, self._learners, self._fabric)
        state.discriminator.requires_grad_(True)


class CouplingLosses:
    """The coupling losses of a run, each with its inputs."""

    def __init__(
        self, couplings: tuple[CouplingConfig, ...], state: State, loss_networks: LossNetworks, fabric: Fabric
    ) -> None:
        """Take the loss networks by coupling and domain."""
        self._couplings = couplings
        generator, encoder = state.generator, state.learners.get("encoder")
        heads = {name: head for name, head in generator.heads.items() if isinstance(head, Layers)}
        rows = {name: [modules for _, modules in head.rows()] for name, head in heads.items()}
        required = {COUPLINGS[coupling.name].requires for coupling in couplings}
        self._features = _keep_features(rows) if "layers" in required else {}
        weights = {
            name: [[weight for module in row for weight in module.parameters()] for row in own]
            for name, own in rows.items()
        }
        self._inputs = {}
        for coupling in couplings:
            networks: dict[str, Any] = {}
            for name, network in loss_networks.get(coupling.name, {}).items():
                fabric.to_device(network.requires_grad_(False))
                networks[name] = network.of_range(generator.image_range)
            encode = encoder.forward if encoder else None
            asked = dict.fromkeys(("classify", "image_features", "read_choices", "recognise"), networks)
            self._inputs[coupling.name] = CouplingInputs(coupling.layers, weights, **asked, encode=encode)

    def generated(self, latents: Tensor, images: Images) -> GeneratedBatch:
        """Return the images just generated from latents [B, Z], with the features of the generator's layers."""
        features = {name: list(kept.values()) for name, kept in self._features.items()}
        return GeneratedBatch(images, latents, features)

    def losses(self, generated: GeneratedBatch, done: float = 0.0) -> WeightedLosses:
        """Return the weight and the value of each coupling loss by its name, after a share of the steps."""
        named = {coupling.name: coupling for coupling in self._couplings}
        return {
            name: (coupling.weight_after(done), COUPLINGS[name].loss(generated, self._inputs[name]))
            for name, coupling in named.items()
        }


def _keep_features(rows: Mapping[str, list[list[nn.Module]]]) -> dict[str, dict[int, Tensor]]:
    """Record the output of each row of modules in every forward pass, by domain and number."""
    kept: dict[str, dict[int, Tensor]] = {name: {} for name in rows}

    def keep(name: str, number: int, _module: nn.Module, _inputs: object, features: Tensor) -> None:
        kept[name][number] = features

    for name, own in rows.items():
        for number, row in enumerate(own):
            row[-1].register_forward_hook(partial(keep, name, number))
    return kept


class AuxiliaryLosses:
    """The auxiliary losses of a run; they sample real images of their own."""

    def __init__(self, experiment: Experiment, state: State, batches: Batches, fabric: Fabric) -> None:
        self._experiment, self._batches, self._fabric = experiment, batches, fabric
        self._networks = state.learners["discriminator"].forward, state.ema_discriminator
        self._augment = Augmenter(experiment.domains, experiment.classifier.augmentations)

    def losses(self, generated: Images, steps_done: int) -> WeightedLosses:
        """Return the weight and the value of each active auxiliary loss, by its name.

        `generated` are pairs [B, C, H, W], detached from the generator.
        """
        experiment = self._experiment
        active = [one for one in experiment.lessons if steps_done >= one.begins * experiment.steps]
        if not active:
            return {}
        real, labels = self._batches.labelled()
        with self._fabric.autocast():
            confidence = experiment.classifier.confidence
            inputs = AuxiliaryInputs(*self._networks, confidence, real, self._augment(real), labels, generated)
            return {one.name: (one.weight, AUXILIARY_LOSSES[one.name].loss(inputs)) for one in active}


def check_labels(experiment: Experiment, labels: Mapping[str, Tensor | None]) -> Images:
    """Return the labels [N] of the labelled domains. Raises DataError if they are missing or too great."""
    checked = {}
    for domain in [domain for domain in experiment.domains if domain.labelled]:
        found = checked[domain.name] = require_labels(labels[domain.name], domain, "train")
        least, most = int(found.min()), int(found.max())
        if least < 0 or most >= experiment.classes:
            raise DataError(
                f"domain {domain.name}: column {domain.label_column!r} of {domain.source!r} holds {least} to {most}; "
                f"classifier.classes = {experiment.classes} allows 0 to {experiment.classes - 1}"
            )
    return checked
