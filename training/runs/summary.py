"""Summary printed before training: images, networks and their layers, and the time that a run takes here."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.config.experiment import Experiment
from training.engine.batches import HeldOutImages
from training.engine.trainer import Trainer
from training.losses.pixels import Images
from training.networks.layers import Layers
from training.runs.figures import sheet
from training.runs.recorder import Watch, measure_snapshot, preview

WARM_UP = 3  # steps that are not timed
MIN_STEPS, MAX_PERIOD, MIN_SECONDS = 8, 64, 5.0  # of the steps that are
HOUR = 3600.0


def describe(trainer: Trainer, images: Images) -> str:
    """Return the summary that is printed before training."""
    experiment, processes = trainer.experiment, trainer.processes
    return "\n".join(
        [
            f"{experiment.name}: {experiment.steps} steps of {experiment.batch_size} images a domain "
            f"on {processes.device}, precision {processes.precision}",
            *(f"  {name}: {len(domain)} images, {_size(domain)}" for name, domain in images.items()),
            *(f"  {name}: {_count(network):,} parameters" for name, network in trainer.state.networks.items()),
        ]
    )


def describe_networks(trainer: Trainer) -> str:
    """Return the layers of each network, with the shapes of their outputs, their parameters and who shares them."""
    experiment, device = trainer.experiment, trainer.processes.device
    height, width = experiment.size
    images = {d.name: torch.zeros(2, d.channels, height, width, device=device) for d in experiment.domains}
    latents = torch.zeros(2, experiment.latent_dim, device=device)
    lines: list[str] = []
    for name, network in trainer.state.networks.items():
        shared = sum(_count(part) for part in network.children() if isinstance(part, Layers))
        lines += [f"\n{name}: {_count(network):,} parameters, {shared:,} of them shared by all domains"]
        lines += _layers(network, latents if name == "generator" else images)
    return "\n".join(lines)


def _layers(network: nn.Module, inputs: Tensor | Images) -> list[str]:
    """Return a line for each row of a network, in the order of the forward pass; domains of equal rows share them."""
    parts: list[Mapping[str, nn.Module]] = [
        {"shared": part} if isinstance(part, Layers) else dict(part.named_children()) for part in network.children()
    ]
    rows: dict[nn.Module, list[list[nn.Module]]] = {
        part: [modules for _, modules in part.rows()]
        for owners in parts
        for part in owners.values()
        if isinstance(part, Layers)
    }
    shapes = _shapes(network, inputs, [modules[-1] for part in rows.values() for modules in part])
    lines: list[str] = []
    for owners in parts:
        described: dict[tuple[str, ...], list[str]] = {}
        for owner, part in owners.items():
            text = tuple(_row(modules, shapes[modules[-1]]) for modules in rows[part])
            described.setdefault(text, []).append(owner)
        lines += [f"  {', '.join(names):<24} {line}" for text, names in described.items() for line in text]
    return lines


@torch.no_grad()
def _shapes(network: nn.Module, inputs: Tensor | Images, modules: list[nn.Module]) -> dict[nn.Module, list[int]]:
    """Return the shape of the output of some of a network's modules, without the batch."""
    shapes: dict[nn.Module, list[int]] = {}

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        shapes[module] = list(output.shape[1:])

    hooks = [module.register_forward_hook(note) for module in modules]
    was_training = network.training
    network.eval()(inputs)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return shapes


def _row(modules: list[nn.Module], shape: list[int]) -> str:
    names = " ".join(_module(module) for module in modules)
    weights = sum(_count(module) for module in modules)
    return f"{'x'.join(map(str, shape)):<14} {weights:>12,}  {names}"


def _module(module: nn.Module) -> str:
    """Return the name of a module, and the window and the stride of a convolution."""
    name = type(module).__name__.removeprefix("Parametrized")
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return f"{name}({module.kernel_size[0]}x{module.kernel_size[1]}, stride {module.stride[0]})"
    return name


@dataclass(frozen=True)
class Cost:
    """Seconds of the parts of a training on this machine."""

    step: float
    steps_timed: int
    extras: dict[str, tuple[float, int]] = field(default_factory=dict)
    """What comes beside the steps: seconds of one, and the steps between two."""

    def seconds(self, steps: int) -> dict[str, float]:
        """Return the seconds of so many steps, and of each of the extras within them."""
        return {"steps": steps * self.step} | {
            name: math.ceil(steps / every) * seconds for name, (seconds, every) in self.extras.items()
        }


def measure_cost(trainer: Trainer, watch: Watch) -> Cost:
    """Time some steps of a trainer, and what its recorder does beside them; nothing is written.

    Some seconds of steps, each lazy penalty in its share of them. The trainer's state changes.
    """
    lazy = math.lcm(*(penalty.every for penalty in trainer.experiment.discriminator.all_penalties), 1)
    period = min(lazy * math.ceil(MIN_STEPS / lazy), MAX_PERIOD)
    for _ in range(WARM_UP):
        trainer.step()
    done, taken, begun = 0, 0.0, _now(trainer)
    while trainer.processes.broadcast(taken < MIN_SECONDS):
        for _ in range(period):
            trainer.step()
        done, taken = done + period, _now(trainer) - begun
    return Cost(taken / done, done, _extras(trainer, watch))


def _extras(trainer: Trainer, watch: Watch) -> dict[str, tuple[float, int]]:
    experiment, state = trainer.experiment, trainer.state
    held_out = HeldOutImages(experiment, watch.held_out, state, trainer.processes)
    jobs: dict[str, tuple[Callable[[], Any], int]] = {
        "metrics": (lambda: [state.not_finite(), state.logits.means(), held_out.accuracy()], experiment.log_every),
        "sheets": (lambda: sheet(preview(trainer)), experiment.sample_every),
        "checkpoints": (lambda: torch.save(state.state_dict(), io.BytesIO()), experiment.checkpoint_every),
    }
    if measure := watch.measure:
        measure_snapshot(trainer, measure)  # the first one reads the real images, too
        jobs[f"{measure.name} of {measure.pairs:,} pairs"] = (
            partial(measure_snapshot, trainer, measure),
            experiment.measure_every,
        )
    return {name: (_timed(trainer, job), every) for name, (job, every) in jobs.items()}


def _timed(trainer: Trainer, job: Callable[[], Any]) -> float:
    begun = _now(trainer)
    job()
    return _now(trainer) - begun


def _now(trainer: Trainer) -> float:
    """Return the time after all that the device was given has been computed."""
    device = trainer.processes.device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def describe_cost(cost: Cost, experiment: Experiment) -> str:
    """Return the hours that a whole run takes, and how much of them is what."""
    seconds = cost.seconds(experiment.steps)
    total = sum(seconds.values())
    lines = [
        f"\ntime on this machine: {total / HOUR:.2f} h, of which {experiment.steps:,} steps take "
        f"{seconds['steps'] / HOUR:.2f} h: {cost.step * 1000:.1f} ms each, by {cost.steps_timed} that were timed"
    ]
    for name, (each, every) in cost.extras.items():
        share = seconds[name] / seconds["steps"]
        lines.append(f"  {name}, every {every:,} steps: {each * 1000:.0f} ms each, {share:.1%} of the steps' time")
    return "\n".join(lines)


def _count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _size(images: Tensor) -> str:
    """Return the size of images, and grey or RGB."""
    _, channels, height, width = images.shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"
