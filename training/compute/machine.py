"""Where and how the arithmetic is done."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Annotated, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from training.config.fields import Precision
from training.errors import ConfigError

COUNT, COUNT_HERE = "WORLD_SIZE", "LOCAL_WORLD_SIZE"  # processes, as torchrun says
CPU_INFO = Path("/proc/cpuinfo")  # of Linux


@dataclass(frozen=True)
class Machine:
    """The device and its threads: what a run may change without becoming another."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes the best there is."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the CPU; 0 leaves their number to PyTorch."""

    @property
    def processes(self) -> int:
        """How many train together: as many as torchrun began, or one."""
        return int(os.environ.get(COUNT, 1))

    def device(self, what: str) -> torch.device:
        """Take hold of the device for what one process does alone.

        Raises ConfigError, also where torchrun began several processes for it.
        """
        if self.processes > 1:
            raise ConfigError(f"{what} is of one process, and torchrun began {self.processes}")
        return self.fabric("32-true").device

    def fabric(self, precision: Precision) -> Fabric:
        """Take hold of the device, together with the other processes where torchrun began several.

        Raises ConfigError where there is no device of the kind for each of them.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        here = int(os.environ.get(COUNT_HERE, 1))
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=here,
                num_nodes=self.processes // here,
                strategy=_Together() if self.processes > 1 else "auto",
                precision=precision,
            )
        except (RuntimeError, MisconfigurationException) as error:
            raise ConfigError(f"machine.accelerator = {self.accelerator!r}: {error}") from error
        fabric.launch()
        return fabric


class _Together(DDPStrategy):
    """Processes whose networks stay bare: the learners average gradients, whatever these went through."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]  # not wrapped
        return module


def describe_machine(device: torch.device, processes: int) -> dict[str, str | int]:
    """Say what a run is trained on: the device's model, its threads of all there are, and its processes."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "threads": torch.get_num_threads(),
        "of_threads": os.cpu_count() or 1,
        "processes": processes,
    }


def _cpu() -> str:
    found = re.search(r"model name\s*: (.+)", CPU_INFO.read_text() if CPU_INFO.is_file() else "")
    return found[1] if found else platform.processor() or platform.machine()
