"""The machine of a training: device, threads, precision, and processes that each take a share of every batch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce, destroy_process_group, get_world_size, is_initialized
from torch.nn.modules.batchnorm import _BatchNorm

from service.metadata import describe_errors
from training.config import Precision
from training.errors import ConfigError

COUNT, COUNT_HERE = "WORLD_SIZE", "LOCAL_WORLD_SIZE"  # environment variables of torchrun
CPU_INFO = Path("/proc/cpuinfo")  # of Linux
T = TypeVar("T")
BFLOAT16 = re.compile(r"\b(amx_bf16|avx512_bf16|bf16)\b")  # flags of x86, and of ARM


@dataclass(frozen=True)
class Machine:
    """Device, threads and precision, which are no fields of an experiment."""

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
        return there.get(self.accelerator, any(there.values()))

    def resume(self, known: Mapping[str, str | int]) -> Machine:
        """Return the machine with unset fields taken from a run's, if they are available here."""
        accelerator, threads = str(known.get("accelerator", "auto")), int(known.get("threads", 0))
        there, changes = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available()}, dict[str, Any]()
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
            strategy=_Unwrapped() if self.processes > 1 else "auto",
            precision=precision,
        )


class _Unwrapped(DDPStrategy):
    """Several processes without DDP's wrapper around networks: learners average the gradients themselves."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]  # not wrapped
        return module


def describe_machine(device: torch.device, processes: int, precision: str) -> dict[str, str | int]:
    """Return the facts of a machine: the device's model, threads used and available, processes, precision."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "threads": torch.get_num_threads(),
        "of_threads": os.cpu_count() or 1,
        "processes": processes,
        "accelerator": device.type,
        "precision": precision,
    }


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively, so that it is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and BFLOAT16.search(_cpu_info()) is not None


def _cpu() -> str:
    found = re.search(r"model name\s*: (.+)", _cpu_info())
    return found[1] if found else platform.processor() or platform.machine()


def _cpu_info() -> str:
    return CPU_INFO.read_text() if CPU_INFO.is_file() else ""


class Processes:
    """Collective operations of the processes of a run; no-ops for a single one.

    Shares are equal, so the mean over processes is that of the whole batch.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric, self.device = fabric, fabric.device
        self.count, self.rank = fabric.world_size, fabric.global_rank
        self.leads = fabric.is_global_zero
        """True in the leading process, which writes."""
        self.precision = str(fabric._precision.precision)  # it has no public name

    def leave(self) -> None:
        """Leave the process group: its threads can crash a process that exits with them."""
        if self.count > 1 and is_initialized():
            destroy_process_group()

    def check(self, batch_size: int, field: str = "batch_size") -> None:
        """Raise ConfigError, naming the field, if a batch cannot be split evenly."""
        if batch_size % self.count:
            raise ConfigError(f"{field} = {batch_size}: must be a multiple of {self.count}, the processes")

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a whole batch: [B, ...] -> [B / count, ...]."""
        return batch.chunk(self.count)[self.rank]

    def broadcast(self, value: T) -> T:
        """Return the leading process's value."""
        received: T = self._fabric.broadcast(value)
        return received

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes."""
        mean = self._fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def average_gradients(self, network: nn.Module) -> None:
        """Make every gradient the mean of all processes', in one exchange."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))


class CommonBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d` or `2d` over equal shares, by the same names in a state; axis 1 has the channels."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> CommonBatchNorm:
        """Make one with the weights and statistics of a normalisation of one process."""
        common = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        common.load_state_dict(norm.state_dict())
        return common.train(norm.training)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise [B, C, ...]; in evaluation by the running statistics."""
        if not self.training:
            return super().forward(values)
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        exact = values.float()
        mean = _mean_of_shares(exact.mean(axes))
        centred = exact - mean.view(shape)
        variance = _mean_of_shares(centred.square().mean(axes))
        self._update_running(mean.detach(), variance.detach(), values.numel() // len(mean) * get_world_size())
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(values.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None  # architectures use no other
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 -- its name in PyTorch
        if input.dim() < 2:
            raise ValueError(f"expected [B, C, ...], got {input.dim()} axes")


def share_statistics(network: nn.Module) -> None:
    """Replace every batch normalisation of a network by one over all processes."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, _BatchNorm):
                setattr(part, name, CommonBatchNorm.of(child))


def _mean_of_shares(share: Tensor) -> Tensor:
    return cast("Tensor", _Sum.apply(share)) / get_world_size()  # type: ignore[no-untyped-call]  # PyTorch's


class _Sum(Function):
    """The sum over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient)  # type: ignore[no-untyped-call]  # PyTorch's
