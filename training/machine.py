"""Where and how the arithmetic is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric


@dataclass(frozen=True)
class Machine:
    """The device, its precision and its threads."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes the best there is."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the networks' arithmetic."""
    threads: int = 0
    """Threads of the CPU; 0 leaves their number to PyTorch."""

    def fabric(self) -> Fabric:
        """Take hold of the device."""
        if self.threads:
            torch.set_num_threads(self.threads)
        return Fabric(accelerator=self.accelerator, devices=1, precision=self.precision)
