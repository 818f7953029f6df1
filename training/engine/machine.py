"""Device, threads and precision of a machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from service.metadata import describe_errors
from training.config import Precision
from training.errors import ConfigError

COUNT, COUNT_HERE = "WORLD_SIZE", "LOCAL_WORLD_SIZE"  # processes, as torchrun says
CPU_INFO = Path("/proc/cpuinfo")  # of Linux
BFLOAT16 = re.compile(r"\b(amx_bf16|avx512_bf16|bf16)\b")  # flags of x86, and of ARM


@dataclass(frozen=True)
class Machine:
    """The device, its threads and the precision of its arithmetic, which belong to no experiment."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes the best there is, and for a run what it was trained on before."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the CPU; 0 leaves their number to PyTorch, and for a run to what it had before."""
    precision: Literal["auto"] | Precision = "auto"
    """Of the arithmetic; auto is bf16-mixed if the device has bfloat16, and for a run what it had before."""

    @classmethod
    def from_environment(cls) -> Machine:
        """Build one of COGAN_ACCELERATOR, COGAN_THREADS and COGAN_PRECISION. Raises ConfigError."""
        names = {field.name: f"COGAN_{field.name.upper()}" for field in fields(cls)}
        given = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
        try:
            return cls(**given)  # type: ignore[arg-type]  # pydantic reads the texts
        except ValidationError as error:
            raise ConfigError(f"environment: COGAN_{describe_errors(error)}") from error

    @property
    def processes(self) -> int:
        """Number of processes that torchrun started, or 1."""
        return int(os.environ.get(COUNT, 1))

    def has_gpu(self) -> bool:
        """Return whether training would be on a GPU."""
        there = {"cpu": False, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return there[self.accelerator] if self.accelerator in there else any(there.values())

    def resume(self, known: Mapping[str, str | int]) -> Machine:
        """Return the machine with unset fields taken from a run's, if they are available here."""
        accelerator = str(known.get("accelerator", "auto"))
        there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available()}
        threads = int(known.get("threads", 0))
        changes: dict[str, Any] = {}
        if self.accelerator == "auto" and there.get(accelerator, torch.backends.mps.is_available()):
            changes["accelerator"] = accelerator
        if not self.threads and threads <= (os.cpu_count() or 1):
            changes["threads"] = threads
        if self.precision == "auto" and "precision" in known:
            changes["precision"] = known["precision"]
        return replace(self, **changes)

    def device(self, what: str) -> torch.device:
        """Return the device for work of a single process.

        Raises ConfigError, also if torchrun started several processes.
        """
        if self.processes > 1:
            raise ConfigError(f"{what} needs a single process, and torchrun started {self.processes}")
        return replace(self, precision="32-true").fabric().device

    def fabric(self) -> Fabric:
        """Return the launched Fabric, joined with the other processes if torchrun started several.

        Raises ConfigError if there is no such device for each of them.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        here = int(os.environ.get(COUNT_HERE, 1))
        try:
            fabric = self._fabric(here, "32-true" if self.precision == "auto" else self.precision)
            if self.precision == "auto" and has_bfloat16(fabric.device):
                fabric = self._fabric(here, "bf16-mixed")
        except (RuntimeError, MisconfigurationException) as error:
            raise ConfigError(f"machine.accelerator = {self.accelerator!r}: {error}") from error
        fabric.launch()
        return fabric

    def _fabric(self, here: int, precision: Precision) -> Fabric:
        return Fabric(
            accelerator=self.accelerator,
            devices=here,
            num_nodes=self.processes // here,
            strategy=_Together() if self.processes > 1 else "auto",
            precision=precision,
        )


class _Together(DDPStrategy):
    """Processes whose networks stay bare: the learners average gradients, whatever these went through."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]  # not wrapped
        return module


def describe_machine(device: torch.device, processes: int, precision: str) -> dict[str, str | int]:
    """Return what a run is trained on: the device's model, threads of all there are, processes, precision."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "threads": torch.get_num_threads(),
        "of_threads": os.cpu_count() or 1,
        "processes": processes,
        "accelerator": device.type,
        "precision": precision,
    }


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 by itself, so that it is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and BFLOAT16.search(_cpu_info()) is not None


def _cpu() -> str:
    found = re.search(r"model name\s*: (.+)", _cpu_info())
    return found[1] if found else platform.processor() or platform.machine()


def _cpu_info() -> str:
    return CPU_INFO.read_text() if CPU_INFO.is_file() else ""
