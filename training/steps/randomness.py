"""The random numbers of a step, which follow from the experiment's seed and the step's number alone.

So a run goes on exactly without keeping the state of a generator, with however many processes it goes on.
"""

from __future__ import annotations

import numpy as np
import torch


class StepRandomness:
    """`batch` draws what all processes of a run have in common; all else is each process's own."""

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        self.batch = torch.Generator(device)
        self._seed = seed
        self._rank = rank

    def begin(self, step: int) -> None:
        """Begin the random numbers of a step anew, PyTorch's own ones among them."""
        self.batch.manual_seed(_mixed(self._seed, step))
        torch.manual_seed(_mixed(self._seed, step, 1 + self._rank))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
