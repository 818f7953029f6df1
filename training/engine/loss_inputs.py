"""Coupling and auxiliary losses of a run: their inputs, and their values in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.config.networks import CouplingConfig
from training.data.dataset import require_labels
from training.engine.batches import Augmenter, Batches
from training.engine.state import State, WeightedLosses
from training.errors import DataError
from training.losses.auxiliary import AUXILIARY_LOSSES, COUPLINGS, AuxiliaryInputs, CouplingInputs, GeneratedBatch
from training.losses.pixels import Images
from training.networks.coupled import CoupledGenerator
from training.networks.layers import Layers
from training.pretrained.loss_networks import LossNetwork, LossNetworks


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
    """Keep the output of each layer in every forward pass, by domain and number."""
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
        """Return the weight and the value of each auxiliary loss that has begun, by its name.

        `generated` are pairs [B, C, H, W], detached from the generator.
        """
        experiment = self._experiment
        begun = [one for one in experiment.lessons if steps_done >= one.begins * experiment.steps]
        if not begun:
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
            return {one.name: (one.weight, AUXILIARY_LOSSES[one.name].loss(inputs)) for one in begun}


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
