"""Losses and accuracy of the discriminator on real and generated images of each domain.

Axes: N updates, D domains, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.engine.distributed import Processes
from training.losses.adversarial import AdversarialLoss
from training.losses.pixels import Images

MAX_PENDING = 1000  # updates whose logits are kept, before they become sums


class LogitStatistics:
    """Statistics of the discriminator's logits since the last reset.

    An update costs one copy of its logits; what they say is computed when it is read.
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

        A loss of pairs has no losses of real and of fake images; it has that of both together.
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
        """Return the share of other real images, by the logits [B] of each domain, that count as real."""
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
