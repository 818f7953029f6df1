"""State of a training run: networks, optimisers, EMAs, means of metrics. Axes: N updates, D domains, B batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.config.networks import NetworkConfig
from training.engine.machine import Processes, share_statistics
from training.losses.adversarial import AdversarialLoss, adversarial_loss
from training.losses.pixels import Images
from training.networks.coupled import CoupledDiscriminator, CoupledEncoder, CoupledGenerator, latents_of_seeds
from training.networks.weights import EMA, OPTIMISERS, initialise, is_finite
from training.pretrained.exported import check_start, load_exported, settle_norms

SETTLED = 2048  # latents by which the normalisations of a loaded generator are settled
WeightedLosses = Mapping[str, tuple[float, Tensor]]  # by name: the weight, and the loss itself


class State:
    """Networks, their optimisers and EMAs, the means of the losses, and the number of steps done."""

    def __init__(self, experiment: Experiment, fabric: Fabric) -> None:
        """Initialise the networks by the experiment's seed."""
        fabric.seed_everything(experiment.seed, verbose=False)
        self.steps_done = 0
        self.means = RunningMeans()
        self.generator = build_generator(experiment)
        self.discriminator = build_discriminator(experiment)
        self.learners = {
            "generator": Learner(self.generator, experiment.generator, fabric),
            "discriminator": Learner(self.discriminator, experiment.discriminator, fabric, ("classify", "features")),
        }
        if experiment.requires("encoder"):
            self.learners["encoder"] = Learner(build_encoder(experiment), experiment.encoder, fabric)
        ema_generator = EMA(self.generator, experiment.generator.ema)
        ema_discriminator = EMA(self.discriminator, experiment.classifier.ema)
        self._emas = {"average": ema_generator} | ({"teacher": ema_discriminator} if experiment.lessons else {})
        self.ema_generator, self.ema_discriminator = ema_generator.network, ema_discriminator.network
        self._experiment, self._processes = experiment, Processes(fabric)
        config = experiment.discriminator
        loss = adversarial_loss(experiment.loss, config.real_label, config.fake_label)
        self.logits = LogitStatistics([domain.name for domain in experiment.domains], loss, self._processes)

    def start_from(self, file: Path) -> None:
        """Load the generator's weights, and its EMA's, from an exported file.

        Raises ConfigError if the file is of another generator than the recipe's, RunError if it is damaged.
        """
        exported = build_generator(check_start(self._experiment, file))
        load_exported(exported, file)
        self.generator.start_from(exported)
        latents = latents_of_seeds(self._experiment.latent_prior, range(SETTLED))
        settle_norms(self.generator, latents.to(self._processes.device))
        self._emas["average"].network.load_state_dict(self.generator.state_dict())

    def begin_step(self) -> None:
        """Set the learning rates: halved every `halve_every` steps, falling linearly over the last share."""
        steps, halve_every = self._experiment.steps, self._experiment.halve_every
        halvings, falling = self.steps_done // halve_every if halve_every else 0, self._experiment.warmdown * steps
        share = min(1.0, (steps - self.steps_done) / falling) if falling else 1.0
        for learner in self.learners.values():
            learner.set_rate(share * 0.5**halvings)

    def end_step(self) -> None:
        """Count the step and update the EMAs of the networks that have learned."""
        waits = {"average"} if self.discriminator_is_alone else set()
        self.steps_done += 1
        for name in self._emas.keys() - waits:
            self._emas[name].update(self.steps_done)

    @property
    def discriminator_is_alone(self) -> bool:
        """True if only the discriminator learns in the next step."""
        return self.steps_done < self._experiment.discriminator.alone

    @property
    def share_done(self) -> float:
        """The share of the steps that are done."""
        return self.steps_done / self._experiment.steps

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""
        return {name: learner.network for name, learner in self.learners.items()}

    def not_finite(self) -> list[str]:
        """Name the mean losses, over all processes, and the networks that are no longer finite numbers."""
        self.means.agree(self._processes.mean)
        self.logits.agree()
        broken = [name for name, network in self.networks.items() if not is_finite(network)]
        return self.means.not_finite() + broken

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step and the next line of metrics depend on."""
        return {"steps_done": self.steps_done, **{name: part.state_dict() for name, part in self._parts().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state exactly."""
        self.steps_done = state["steps_done"]
        self.logits.reset()
        for name, part in self._parts().items():
            if name != "logits" or name in state:  # checkpoints of earlier versions have none
                part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        optimisers = {f"{name}_optimiser": learner.optimiser for name, learner in self.learners.items()}
        averages = {name: ema.network for name, ema in self._emas.items()}
        return {"logits": self.logits, **self.networks, **averages, **optimisers, "means": self.means}


class Learner:
    """A network and its optimiser; `forward` runs it in the precision and on the device of the run."""

    def __init__(self, network: nn.Module, config: NetworkConfig, fabric: Fabric, methods: Sequence[str] = ()) -> None:
        """Take a network, and the names of its other forward methods."""
        self._processes = Processes(fabric)
        if self._processes.count > 1:
            share_statistics(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        make = OPTIMISERS[config.optimiser]
        optimiser = make(network.parameters(), config.learning_rate, config.betas, config.weight_decay)
        self.network, self._config = network, config
        self.forward, self.optimiser = fabric.setup(network, optimiser)
        for method in methods:
            self.forward.mark_forward_method(method)

    def set_rate(self, share: float) -> None:
        """Set the learning rate to a share of the experiment's."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._config.learning_rate * share

    def update(self) -> None:
        """Step the optimiser with the gradients of the whole batch, clipped to the allowed norm."""
        self._processes.average_gradients(self.network)
        if self._config.clip_gradients is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_gradients)
        self.optimiser.step()


def descend(loss: Tensor, learners: Sequence[Learner], fabric: Fabric) -> None:
    """Update learners once by the gradients of a loss."""
    for learner in learners:
        learner.optimiser.zero_grad()
    fabric.backward(loss)
    for learner in learners:
        learner.update()


@torch.no_grad()
def clip_weights(network: nn.Module, limit: float) -> None:
    """Clip every weight to [-limit, limit] (Arjovsky et al. 2017, algorithm 1)."""
    for weight in network.parameters():
        weight.clamp_(-limit, limit)


class RunningMeans:
    """Means of named scalars, kept on their device so that adding one does not synchronise."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Count one more value of each name."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def weigh(self, loss: Tensor, costs: WeightedLosses) -> Tensor:
        """Return the loss with the weighted losses added, and count each of them."""
        for name, (weight, cost) in costs.items():
            self.add(**{name: cost})
            loss = loss + weight * cost
        return loss

    def agree(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Replace every sum by its mean over the processes, each of which has counted its own share."""
        self._sums = {name: mean(total) for name, total in self._sums.items()}

    def means(self) -> dict[str, float]:
        """Return the means since the last reset, by name."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def not_finite(self) -> list[str]:
        """Name the scalars that have been infinite or not a number since the last reset."""
        return [name for name, mean in self.means().items() if not math.isfinite(mean)]

    def reset(self) -> None:
        """Start over."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, tuple[Tensor, int]]:
        """Return what `load_state_dict` takes."""
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}

    def load_state_dict(self, state: dict[str, tuple[Tensor, int]]) -> None:
        """Restore the means."""
        self._sums = {name: total for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}


def build_generator(experiment: Experiment) -> CoupledGenerator:
    """Build the coupled generator."""
    config, architecture = experiment.generator, experiment.architecture("generator")
    layers = config.width, config.shared_of(architecture), config.choices
    generator = CoupledGenerator(architecture, _channels(experiment), experiment.latent_dim, *layers)
    initialise(generator, config.initialisation, config.initial_bias, config.initial_slope)
    if config.equal_heads:
        first, *others = generator.heads.values()
        for head in others:
            head.load_state_dict(first.state_dict())
    return generator


def build_discriminator(experiment: Experiment) -> CoupledDiscriminator:
    """Build the coupled discriminator."""
    config, architecture = experiment.discriminator, experiment.architecture("discriminator")
    layers = config.width, config.shared_of(architecture), config.own_last_layers
    discriminator = CoupledDiscriminator(architecture, _channels(experiment), *layers, experiment.classes)
    initialise(discriminator, config.initialisation, config.initial_bias, config.initial_slope)
    return discriminator


def build_encoder(experiment: Experiment) -> CoupledEncoder:
    """Build the coupled encoder, images -> latents."""
    config, architecture = experiment.encoder, experiment.architecture("encoder")
    layers = config.width, config.shared_of(architecture), config.own_last_layers
    encoder = CoupledEncoder(architecture, _channels(experiment), {"latent": experiment.latent_dim}, *layers)
    initialise(encoder, config.initialisation, config.initial_bias, config.initial_slope)
    return encoder


def _channels(experiment: Experiment) -> dict[str, int]:
    return {domain.name: domain.channels for domain in experiment.domains}


MAX_PENDING = 1000  # updates whose logits are kept before they are summed


class LogitStatistics:
    """Statistics of the discriminator's logits since the last reset.

    An update costs one copy of its logits; losses and accuracies are computed when they are read.
    """

    def __init__(self, domains: Sequence[str], loss: AdversarialLoss, processes: Processes) -> None:
        self._domains, self._loss, self._processes = domains, loss, processes
        self.reset()

    def add(self, real: Images, fake: Images) -> None:
        """Count the logits [B] of an update, by domain."""
        logits = [part[name] for part in (real, fake) for name in self._domains]
        self._pending.append(torch.stack(logits).detach())
        if len(self._pending) == MAX_PENDING:
            self._reduce()

    def reset(self) -> None:
        """Start over."""
        self._pending: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}  # float64 [D], of means over a batch
        self._count = 0

    def agree(self) -> None:
        """Replace the sums by their means over several processes, each of which has counted its own share."""
        if self._processes.count > 1:
            self._reduce()
            device = self._processes.device
            self._sums = {name: self._processes.mean(total.to(device)).cpu() for name, total in self._sums.items()}

    def means(self) -> dict[str, float]:
        """Return the mean logits over domains, and the losses and the accuracy of each: real_accuracy/digit.

        A loss of pairs of logits has no separate losses of real and of fake images.
        """
        self._reduce()
        means = {name: total / self._count for name, total in self._sums.items()}
        logits = {name: float(mean.mean()) for name, mean in means.items() if name.endswith("_logit")}
        others = {name: mean for name, mean in means.items() if name not in logits}
        return logits | {
            f"{name}/{domain}": value
            for name, mean in others.items()
            for domain, value in zip(self._domains, mean.tolist(), strict=True)
        }

    def accuracy(self, logits: Images) -> dict[str, Tensor]:
        """Return the share of other real images, by the logits [B] of each domain, that are classified as real."""
        self._reduce()
        middle = (self._sums["real_logit"] + self._sums["fake_logit"]) / 2 / self._count
        boundaries = dict(zip(self._domains, self._boundary(middle).tolist(), strict=True))
        return {name: (batch > boundaries[name]).float().mean() for name, batch in logits.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        pending = torch.stack(self._pending) if self._pending else None
        return {"pending": pending, "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the statistics."""
        pending = state["pending"]
        self._pending = [] if pending is None else list(pending.to(self._processes.device))
        self._sums, self._count = dict(state["sums"]), state["count"]

    def _boundary(self, middle: Tensor) -> Tensor:
        """Return the logit that separates real from fake: the loss's, or the middle of both means."""
        return middle if self._loss.boundary is None else torch.full_like(middle, self._loss.boundary)

    def _reduce(self) -> None:
        if not self._pending:
            return
        logits = torch.stack(self._pending).cpu().double()
        real, fake = logits.unflatten(1, (2, len(self._domains))).unbind(1)  # [N, D, B]
        for name, value in self._measure(real, fake).items():
            self._sums[name] = self._sums.get(name, 0.0) + value * len(logits)
        self._count += len(logits)
        self._pending = []

    def _measure(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return the means [D] over real and fake logits [N, D, B]."""
        pairs = zip(real.unbind(1), fake.unbind(1), strict=True)
        real_mean, fake_mean = real.mean(2, keepdim=True), fake.mean(2, keepdim=True)
        boundary = self._boundary((real_mean + fake_mean) / 2)
        measured = {"discriminator_loss": torch.stack([self._loss.discriminator(*pair) for pair in pairs])}
        if self._loss.sides:
            real_cost, fake_cost = self._loss.sides
            measured |= {"real_loss": real_cost(real).mean((0, 2)), "fake_loss": fake_cost(fake).mean((0, 2))}
        return measured | {
            "real_logit": real.mean((0, 2)),
            "fake_logit": fake.mean((0, 2)),
            "real_accuracy": (real > boundary).double().mean((0, 2)),
            "fake_accuracy": (fake < boundary).double().mean((0, 2)),
        }
