"""Optimisers: siblings of one signature, by name.

Each takes weights, a learning rate, two decay rates and a weight decay, which is added to the gradient
(L2), as the earlier systems meant it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

Make = Callable[[Iterable[nn.Parameter], float, tuple[float, float], float], Optimizer]


def _adam(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return Adam(weights, rate, betas, weight_decay=decay, fused=True)


def _sgd(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return SGD(weights, rate, momentum=betas[0], weight_decay=decay)


def _rmsprop(weights: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], decay: float) -> Optimizer:
    return RMSprop(weights, rate, alpha=betas[1], weight_decay=decay)


OPTIMISERS: dict[str, Make] = {"adam": _adam, "sgd": _sgd, "rmsprop": _rmsprop}
