"""Where and how the arithmetic is done."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from lightning_fabric import Fabric
from pydantic import Field
from pydantic.dataclasses import dataclass

from training.errors import ConfigError
from training.fields import Precision


@dataclass(frozen=True)
class Machine:
    """The device and its threads: what a run may change without becoming another."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes the best there is."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the CPU; 0 leaves their number to PyTorch."""

    def fabric(self, precision: Precision) -> Fabric:
        """Take hold of the device. Raises ConfigError where there is none of its kind."""
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            return Fabric(accelerator=self.accelerator, devices=1, precision=precision)
        except RuntimeError as error:
            raise ConfigError(f"machine.accelerator = {self.accelerator!r}: {error}") from error
