"""Weights of a network: initialisation, spectral normalisation and optimisers, by name; their average (EMA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
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

    Their biases are set to `bias`, and PReLUs to `slope`, or to that of their layer if it is None.
    Normalisations stay as they are.

    Then layers with `spectral` are normalised: they use their weight over its largest singular
    value, which each forward of training estimates a little better (Miyato et al. 2018, algorithm 1).
    """
    for module in network.modules():
        if isinstance(module, LINEAR):
            INITIALISERS[name](module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
        elif isinstance(module, nn.PReLU) and slope is not None:
            nn.init.constant_(module.weight, slope)
    for operation in [operation for operation in _spectral(network) if isinstance(operation, LINEAR)]:
        spectral_norm(operation)


def _spectral(network: nn.Module) -> list[nn.Module]:
    parts = [part for part in network.modules() if isinstance(part, Layers)]
    return [module for part in parts for layer, row in part.rows() if layer.spectral for module in row]


def _normal(weight: Tensor) -> None:
    nn.init.normal_(weight, 0.0, 0.02)  # Radford et al. 2016, section 4


def _xavier(weight: Tensor) -> None:
    nn.init.xavier_uniform_(weight, math.sqrt(2))  # the official code's


def _he(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, a=0.2)


def _uniform(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # PyTorch's own


INITIALISERS: dict[str, Callable[[Tensor], None]] = {
    "normal": _normal,
    "xavier": _xavier,
    "he": _he,
    "uniform": _uniform,
}


def _adam(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return Adam(weights, rate, betas, weight_decay=decay, fused=True)


def _sgd(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return SGD(weights, rate, momentum=betas[0], weight_decay=decay)


def _rmsprop(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return RMSprop(weights, rate, alpha=betas[1], weight_decay=decay)


OPTIMISERS: dict[str, Make] = {"adam": _adam, "sgd": _sgd, "rmsprop": _rmsprop}


Network = TypeVar("Network", bound=nn.Module)
SINGULAR_VECTORS = ("._u", "._v")  # buffers of torch.nn.utils.parametrizations.spectral_norm


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move every floating weight and buffer of `average` by (1 - decay) towards the network's.

    Buffers are averaged too: with other batch statistics an averaged generator generates grey noise. The singular
    vectors of spectral normalisation are copied instead, because a mean of unit vectors is not one.
    """
    mine, theirs = average.state_dict(), network.state_dict()
    floating = [
        name for name, value in mine.items() if value.is_floating_point() and not name.endswith(SINGULAR_VECTORS)
    ]
    torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], 1.0 - decay)
    for name in mine.keys() - set(floating):
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
