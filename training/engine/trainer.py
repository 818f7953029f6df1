"""A step of a coupled GAN: the two updates, and the coupling and auxiliary losses with their inputs.

One forward pass of the generator serves both updates: the discriminator takes its images detached, and the
same graph then carries the generator's gradient. Axes: B batch, Z latent, K classes, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.config.networks import CouplingConfig, PenaltyConfig
from training.data.dataset import require_labels
from training.engine.batches import Augmenter, Batches, DiscriminatorInput
from training.engine.machine import Processes
from training.engine.state import State, WeightedLosses, clip_weights, descend
from training.errors import DataError
from training.losses.adversarial import LOSSES, PENALTIES, PLACES, adversarial_loss, sum_over_domains
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS, AuxiliaryInputs, CouplingInputs, GeneratedBatch
from training.losses.pixels import Images
from training.networks.coupled import CoupledGenerator
from training.networks.layers import Layers
from training.pretrained.features import LossNetwork, LossNetworks


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
        logits = self._logits_by_place(plain) | {
            place: self._exact_logits(images[place]) for place in sorted(penalised)
        }
        loss = sum_over_domains(self._loss.discriminator, logits["real"], logits["fake"])
        self._state.means.add(discriminator_loss=loss)
        self._state.logits.add(logits["real"], logits["fake"])
        done = self._state.share_done
        costs = {one.name: (one.weight_after(done), _cost(one, images, logits)) for one in due}
        return self._state.means.weigh(loss, costs)

    def _logits_by_place(self, images: Mapping[str, Images]) -> dict[str, Images]:
        """Return the logits of images by place, in one forward pass if the network does not normalise over a batch."""
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


class CouplingLosses:
    """The coupling losses of a run, each with its inputs."""

    def __init__(
        self, couplings: tuple[CouplingConfig, ...], state: State, loss_networks: LossNetworks, fabric: Fabric
    ) -> None:
        """Take the loss networks by coupling and domain."""
        self._couplings = couplings
        generator, encoder = state.generator, state.learners.get("encoder")
        required = {COUPLINGS[coupling.name].requires for coupling in couplings}
        self._features = _keep_features(generator) if "layers" in required else {}
        weights, encode = _weights(generator), encoder.forward if encoder else None
        self._inputs = {}
        for coupling in couplings:
            by_domain = loss_networks.get(coupling.name, {})
            networks = {name: _on_images(one, generator.image_range, fabric) for name, one in by_domain.items()}
            self._inputs[coupling.name] = CouplingInputs(coupling.layers, weights, networks, networks, encode)

    def generated(self, latents: Tensor, images: Images) -> GeneratedBatch:
        """Return the images just generated from latents [B, Z], with the features of the generator's layers."""
        features = {name: list(kept.values()) for name, kept in self._features.items()}
        return GeneratedBatch(images, latents, features)

    def losses(self, generated: GeneratedBatch, done: float = 0.0) -> WeightedLosses:
        """Return the weight and the value of each coupling loss by its name, after a share of the steps."""
        return {
            coupling.name: (
                coupling.weight_after(done),
                COUPLINGS[coupling.name].loss(generated, self._inputs[coupling.name]),
            )
            for coupling in self._couplings
        }


def _on_images(network: LossNetwork, image_range: tuple[float, float], fabric: Fabric) -> Callable[[Tensor], Any]:
    """Return a frozen network as a function of images [B, C, H, W] of that range."""
    fabric.to_device(network.requires_grad_(False))
    return network.of_range(image_range)


def _rows(generator: CoupledGenerator) -> dict[str, list[list[nn.Module]]]:
    heads = {name: head for name, head in generator.heads.items() if isinstance(head, Layers)}
    return {name: [modules for _, modules in head.rows()] for name, head in heads.items()}


def _weights(generator: CoupledGenerator) -> dict[str, list[list[Tensor]]]:
    return {
        name: [[weight for module in row for weight in module.parameters()] for row in rows]
        for name, rows in _rows(generator).items()
    }


def _keep_features(generator: CoupledGenerator) -> dict[str, dict[int, Tensor]]:
    """Record the output of each layer in every forward pass, by domain and number."""
    kept: dict[str, dict[int, Tensor]] = {name: {} for name in generator.heads}
    for name, rows in _rows(generator).items():
        for number, row in enumerate(rows):
            row[-1].register_forward_hook(partial(_keep, kept[name], number))
    return kept


def _keep(kept: dict[int, Tensor], number: int, _module: nn.Module, _inputs: object, features: Tensor) -> None:
    kept[number] = features


class AuxiliaryLosses:
    """The auxiliary losses of a run; they sample real images of their own."""

    def __init__(self, experiment: Experiment, state: State, batches: Batches, fabric: Fabric) -> None:
        self._experiment, self._batches, self._fabric = experiment, batches, fabric
        self._discriminator, self._ema_discriminator = state.learners["discriminator"].forward, state.ema_discriminator
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
            inputs = AuxiliaryInputs(
                self._discriminator,
                self._ema_discriminator,
                experiment.classifier.confidence,
                real,
                self._augment(real),
                labels,
                generated,
            )
            return {one.name: (one.weight, AUXILIARY_LOSSES[one.name].loss(inputs)) for one in active}


def check_labels(experiment: Experiment, labels: Mapping[str, Tensor | None]) -> Images:
    """Return the labels [N] of the labelled domains. Raises DataError if they are missing or too great."""
    checked = {}
    for domain in [domain for domain in experiment.domains if domain.labelled]:
        found = require_labels(labels[domain.name], domain, "train")
        if int(found.min()) < 0 or int(found.max()) >= experiment.classes:
            raise DataError(
                f"domain {domain.name}: column {domain.label_column!r} of {domain.source!r} holds "
                f"{int(found.min())} to {int(found.max())}; classifier.classes = {experiment.classes} "
                f"allows 0 to {experiment.classes - 1}"
            )
        checked[domain.name] = found
    return checked
