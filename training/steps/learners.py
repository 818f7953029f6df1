"""A network and its optimiser: what one update changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.compute.processes import Processes
from training.config.network import NetworkConfig
from training.networks.optimisers import OPTIMISERS


class Learner:
    """`network` as it was built, and `forward`, the same in the precision and on the device of the run."""

    def __init__(self, network: nn.Module, config: NetworkConfig, fabric: Fabric, ways: Sequence[str] = ()) -> None:
        """Take a network, and the names of other ways through it that `forward` is to have, too."""
        self._processes = Processes(fabric)
        self._processes.join(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        make = OPTIMISERS[config.optimiser]
        optimiser = make(network.parameters(), config.learning_rate, config.betas, config.weight_decay)
        self.network = network
        self.forward, self.optimiser = fabric.setup(network, optimiser)
        for way in ways:
            self.forward.mark_forward_method(way)
        self._config = config

    def set_rate(self, share: float) -> None:
        """Set the learning rate to a share of the experiment's."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._config.learning_rate * share

    def update(self) -> None:
        """Go a step along the gradients of the whole batch, shortened to the norm that is allowed."""
        self._processes.average_gradients(self.network)
        if self._config.clip_gradients is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._config.clip_gradients)
        self.optimiser.step()


def descend(loss: Tensor, learners: Sequence[Learner], fabric: Fabric) -> None:
    """Update learners once, along the gradients of a loss."""
    for learner in learners:
        learner.optimiser.zero_grad()
    fabric.backward(loss)
    for learner in learners:
        learner.update()


@torch.no_grad()
def clip_weights(network: nn.Module, limit: float) -> None:
    """Bring every weight into [-limit, limit] (Arjovsky et al. 2017, algorithm 1)."""
    for weight in network.parameters():
        weight.clamp_(-limit, limit)
