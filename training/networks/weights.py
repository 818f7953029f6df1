"""Weights of a network: initialisation, spectral normalisation and optimisers, by name; their average (EMA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import SGD, Adam, Optimizer, RMSprop

from training.networks.layers import Layers

LINEAR = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Make = Callable[[Iterable[nn.Parameter], float, tuple[float, float], float], Optimizer]


def initialise(network: nn.Module, name: str, bias: float = 0.0, slope: float | None = None) -> None:
    """Initialise the weights of every linear operation by the method of that name in INITIALISERS.

    Their biases are set to `bias`, and PReLUs to `slope` unless it is None. Then layers with `spectral` are
    normalised: they use their weight over its largest singular value, which each forward of training estimates a
    little better (Miyato et al. 2018, algorithm 1).
    """
    for module in network.modules():
        if isinstance(module, LINEAR):
            INITIALISERS[name](module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
        elif isinstance(module, nn.PReLU) and slope is not None:
            nn.init.constant_(module.weight, slope)
    rows = [row for part in network.modules() if isinstance(part, Layers) for row in part.rows()]
    for layer, modules in rows:
        for operation in modules if layer.spectral else ():
            if isinstance(operation, LINEAR):
                spectral_norm(operation)


INITIALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": partial(nn.init.normal_, std=0.02),  # Radford et al. 2016, section 4
    "xavier": partial(nn.init.xavier_uniform_, gain=math.sqrt(2)),  # the official code's
    "he": partial(nn.init.kaiming_normal_, a=0.2),
    "uniform": partial(nn.init.kaiming_uniform_, a=math.sqrt(5)),  # PyTorch's own
}
OPTIMISERS: dict[str, Make] = {
    "adam": lambda weights, rate, betas, decay: Adam(weights, rate, betas, weight_decay=decay, fused=True),
    "sgd": lambda weights, rate, betas, decay: SGD(weights, rate, momentum=betas[0], weight_decay=decay),
    "rmsprop": lambda weights, rate, betas, decay: RMSprop(weights, rate, alpha=betas[1], weight_decay=decay),
}
Network = TypeVar("Network", bound=nn.Module)
SINGULAR_VECTORS = ("._u", "._v")  # buffers of torch.nn.utils.parametrizations.spectral_norm


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move every floating weight and buffer of `average` by (1 - decay) towards the network's.

    Buffers too: with other batch statistics an averaged generator generates noise. Singular vectors of spectral
    normalisation are copied: a mean of unit vectors is not one.
    """
    mine, theirs = average.state_dict(), network.state_dict()
    averaged = [
        name for name, value in mine.items() if value.is_floating_point() and not name.endswith(SINGULAR_VECTORS)
    ]
    torch._foreach_lerp_([mine[name] for name in averaged], [theirs[name] for name in averaged], 1.0 - decay)
    for name in mine.keys() - set(averaged):
        mine[name].copy_(theirs[name])


class EMA(Generic[Network]):
    """The average of a network, as a network without gradients."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._followed, self._decay = network, decay

    def update(self, steps_done: int) -> None:
        """Update the average, with a smaller decay at first, so that it forgets the initial weights."""
        warm = (1 + steps_done) / (10 + steps_done)
        update_average(self.network, self._followed, min(self._decay, warm))


def count_weights(network: nn.Module) -> int:
    """Return the number of weights of a network."""
    return sum(weight.numel() for weight in network.parameters())


def is_finite(network: nn.Module) -> bool:
    """Return whether all weights of a network are finite numbers."""
    return all(bool(weight.isfinite().all()) for weight in network.parameters())
