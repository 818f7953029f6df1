"""Train the networks of a recipe, or resume a run.

python -m training.train training/recipes/digit_negative.toml --steps 2000
python -m training.train runs/00003_digit_edge
torchrun --nproc-per-node 2 -m training.train training/recipes/digit_negative.toml
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tyro.conf import arg

from training.cli import parse, size_asked_for, verb
from training.config.experiment import Experiment, load_experiment
from training.data.choices import Choices
from training.data.dataset import ImageSet, load_held_out, load_training_sets, report_learned
from training.engine.batches import HeldOutImages
from training.engine.machine import Machine, describe_machine
from training.engine.trainer import Trainer, check_labels
from training.errors import ConfigError, RunError
from training.files import make_folder
from training.losses.pixels import Images
from training.metrics.label_free import choose_measure
from training.networks.layers import Layers
from training.networks.weights import count_weights
from training.pretrained.classifier import prune
from training.pretrained.features import load_loss_networks
from training.runs.figures import sheet
from training.runs.folder import (
    RESTORED_FROM,
    RunFolder,
    describe_change,
    fitting,
    last_step,
    list_checkpoints,
    load_checkpoint,
    locked,
    machines,
    read_metrics,
)
from training.runs.images import check_images, write_images
from training.runs.recorder import Recorder, Watch, measure_snapshot, preview, stop_requested

WARM_UP = 3  # steps before those that are timed
MIN_STEPS, MAX_PERIOD, MIN_SECONDS = 8, 64, 5.0  # of the timed steps
HOUR = 3600.0


@dataclass(frozen=True)
class TrainOptions:
    """Experiment, runs folder and machine of a training."""

    experiment: Annotated[Experiment, arg(name="")]
    runs: Path = Path("runs")
    """Folder that the numbered run folder is made in."""
    dry_run: bool = False
    """Check everything, print layers, parameters and hours on this machine, timed on a few steps, and stop."""
    classifiers: Path = Path("classifiers")
    """Folder of the evaluation classifiers, by whose features snapshots are measured if they are there."""
    machine: Machine = field(default_factory=Machine.from_environment)


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Train a recipe, or resume a run folder."""
    resumed = RunFolder.open(target) if target.is_dir() else None
    if source := resumed and resumed.description().get(RESTORED_FROM):
        raise ConfigError(f"{target} was restored from {source}, which has no discriminator: train its recipe instead")
    choices = Choices(Machine.from_environment().has_gpu(), size_asked_for(arguments))
    experiment = resumed.experiment() if resumed else load_experiment(target, choices)
    options = parse(TrainOptions(experiment), arguments)
    if resumed and options.experiment != experiment:
        raise ConfigError(f"{target} is a run, whose experiment cannot be changed: train a recipe instead")
    prepared = prepare(options.experiment, options.machine, resumed, options.classifiers)
    trainer = prepared.trainer
    if choices.made:
        print_once(trainer, "\n".join(["chosen, as the recipe does not say:", *choices.made]))
    if options.dry_run:
        print_once(trainer, describe_networks(trainer))
        print_once(trainer, describe_cost(measure_cost(trainer, prepared.watch), trainer.experiment))
    else:
        folder = resumed or begin(prepared, options.runs)
        ended = last_step(folder.checkpoints) == trainer.experiment.steps
        print_once(trainer, f"run folder: {folder.path}" + ", which has no step left to train" * ended)
        try:
            train(trainer, folder, prepared.watch)
        except KeyboardInterrupt:
            print_once(trainer, f"stopped; resume with: python -m training.train {folder.path}")
            raise
        print_once(trainer, f"done: {folder.path}; measure it with: python -m training.evaluate {folder.path}")
    trainer.processes.leave()


@dataclass(frozen=True)
class Prepared:
    """A trainer, its loaded images, and the images and measure that it is compared with."""

    trainer: Trainer
    sets: dict[str, ImageSet]
    """Training images of each domain."""
    watch: Watch


def prepare(
    experiment: Experiment, machine: Machine, run: RunFolder | None = None, classifiers: Path = TrainOptions.classifiers
) -> Prepared:
    """Load the data and networks of an experiment, and print a summary.

    Snapshots are measured by the evaluation classifiers in that folder, if they are there, else without labels.
    A resumed run keeps its device, threads and precision if they are available; a warning is printed if it
    cannot go on bit for bit. Raises ConfigError, DataError, and RunError if the images of the run have changed.
    """
    known = machines(run) if run else []
    fabric = (machine.resume(known[-1]) if known else machine).fabric()
    held_out = load_held_out(experiment)
    sets = prune(experiment, load_training_sets(experiment))
    report_learned(experiment, sets)
    labels = check_labels(experiment, {name: kept.labels for name, kept in sets.items()})
    images = {name: kept.images for name, kept in sets.items()}
    moved = check_images(run, sets) if run else ""
    loss_networks = load_loss_networks(experiment, images, fabric.device)
    trainer = Trainer(experiment, images, fabric, loss_networks, labels)
    if (start := experiment.generator.start) and not (run and last_step(run.checkpoints)):
        trainer.state.start_from(Path(start))
    measure, reason = choose_measure(experiment, sets, classifiers, trainer.processes.device)
    print_once(trainer, describe(trainer, images))
    print_once(trainer, f"snapshots: {measure.name}" if measure else f"snapshots are not measured: {reason}")
    if run and last_step(run.checkpoints):
        processes = trainer.processes
        facts = describe_machine(processes.device, processes.count, processes.precision)
        changes = filter(None, [describe_change(run, facts, torch.__version__), moved])
        if reason := "; ".join(changes):
            print_once(trainer, f"warning: this run does not go on bit for bit: {reason}")
    return Prepared(trainer, sets, Watch(held_out, measure))


def begin(prepared: Prepared, runs: Path) -> RunFolder:
    """Create the folder of a new run, one for all processes."""
    trainer, path = prepared.trainer, Path()
    if trainer.processes.leads:
        folder = RunFolder.create(runs, trainer.experiment)
        write_images(folder, prepared.sets)
        path = folder.path
    return RunFolder(trainer.processes.broadcast(path))


def complete(
    run: RunFolder | None,
    experiment: Experiment,
    runs: Path,
    machine: Machine,
    classifiers: Path = TrainOptions.classifiers,
) -> RunFolder:
    """Finish an experiment's run, or train a new one, and return it. Raises what `prepare` and `train` raise."""
    if run is None or last_step(run.checkpoints) < experiment.steps:
        prepared = prepare(experiment, machine, run, classifiers)
        run = run or begin(prepared, runs)
        train(prepared.trainer, run, prepared.watch)
    return run


def train(trainer: Trainer, folder: RunFolder, watch: Watch | None = None) -> None:
    """Train a run from its last checkpoint, if any. Raises RunError if it is being trained already, DivergedError."""
    with locked(folder, trainer.processes):
        require_checkpoints(folder, trainer.experiment.checkpoint_every)
        if list_checkpoints(folder.checkpoints):  # a run killed before its first one starts over
            kept = load_checkpoint(folder.checkpoints)
            with fitting(folder.checkpoints):
                trainer.state.load_state_dict(kept)
        with closing(Recorder(folder, trainer, watch)) as record:
            run(trainer, record)
        record.sum_up()


def require_checkpoints(folder: RunFolder, every: int) -> None:
    """Make the folder of a run's checkpoints, one `every` so many steps. Raises RunError if all of them are lost."""
    steps = max((line.get("step", 0) for line in read_metrics(folder.path)), default=0)
    if steps > every and not list_checkpoints(folder.checkpoints):
        raise RunError(
            f"{folder.path} has metrics of {steps:.0f} steps and no checkpoint: restore its folder "
            f"{folder.checkpoints.name}, or train its recipe anew"
        )
    make_folder(folder.checkpoints)


def print_once(trainer: Trainer, text: str) -> None:
    """Print in the leading process alone."""
    if trainer.processes.leads:
        print(text)


def run(trainer: Trainer, record: Recorder) -> None:
    """Train to the last step, writing metrics, samples and checkpoints, and measuring snapshots.

    On a signal it saves the state after the step, and raises KeyboardInterrupt. Raises DivergedError.
    """
    experiment = trainer.experiment
    begun, total, silent = trainer.state.steps_done, experiment.steps, not trainer.processes.leads
    steps = range(begun + 1, total + 1)
    with (
        stop_requested(trainer.processes.count) as stop,
        tqdm(steps, initial=begun, total=total, unit="step", mininterval=1.0, disable=silent) as bar,
    ):
        for done in bar:
            trainer.step()
            last = done == total
            if last or done % experiment.log_every == 0:
                bar.set_postfix(record.write_metrics(), refresh=False)
            if last or done % experiment.sample_every == 0 or record.preview_is_due():
                record.save_sheet()
            if (last or done % experiment.measure_every == 0) and (measured := record.measure()):
                bar.write(measured)
            if last or stop() or done % experiment.checkpoint_every == 0:
                record.save_checkpoint()
            if stop():
                raise KeyboardInterrupt


def describe(trainer: Trainer, images: Images) -> str:
    """Return the summary that is printed before training."""
    experiment, processes = trainer.experiment, trainer.processes
    return "\n".join(
        [
            f"{experiment.name}: {experiment.steps} steps of {experiment.batch_size} images a domain "
            f"on {processes.device}, precision {processes.precision}",
            *(f"  {name}: {_size(domain)}" for name, domain in images.items()),
            *(f"  {name}: {count_weights(network):,} parameters" for name, network in trainer.state.networks.items()),
        ]
    )


def describe_networks(trainer: Trainer) -> str:
    """Return the layers of each network: the domains that share them, output shapes, parameters."""
    experiment, device = trainer.experiment, trainer.processes.device
    height, width = experiment.size
    images = {d.name: torch.zeros(2, d.channels, height, width, device=device) for d in experiment.domains}
    latents = torch.zeros(2, experiment.latent_dim, device=device)
    lines: list[str] = []
    for name, network in trainer.state.networks.items():
        shared = sum(count_weights(part) for part in network.children() if isinstance(part, Layers))
        lines += [f"\n{name}: {count_weights(network):,} parameters, {shared:,} of them shared by all domains"]
        lines += _layers(network, latents if name == "generator" else images)
    return "\n".join(lines)


def _layers(network: nn.Module, inputs: Tensor | Images) -> list[str]:
    """Return a line for each row of a network, in the order of the forward pass; domains of equal rows share them."""
    shapes, lines = _shapes(network, inputs), list[str]()
    for part in network.children():
        described: dict[tuple[str, ...], list[str]] = {}
        for owner, layers in [("shared", part)] if isinstance(part, Layers) else part.named_children():
            assert isinstance(layers, Layers)
            text = tuple(_row(modules, shapes[modules[-1]]) for _, modules in layers.rows())
            described.setdefault(text, []).append(owner)
        lines += [f"  {', '.join(names):<24} {line}" for text, names in described.items() for line in text]
    return lines


@torch.no_grad()
def _shapes(network: nn.Module, inputs: Tensor | Images) -> dict[nn.Module, list[int]]:
    """Return the shape of the output of each module in a network that puts out a tensor, without the batch."""
    shapes: dict[nn.Module, list[int]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[module] = list(output.shape[1:])

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    was_training = network.training
    network.eval()(inputs)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return shapes


def _row(modules: list[nn.Module], shape: list[int]) -> str:
    weights = sum(map(count_weights, modules))
    return f"{'x'.join(map(str, shape)):<14} {weights:>12,}  {' '.join(map(_module, modules))}"


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
    """Work beside the steps: seconds of one, and the steps between two."""

    def seconds(self, steps: int) -> dict[str, float]:
        """Return the seconds of so many steps, and of each of the extras within them."""
        return {"steps": steps * self.step} | {
            name: math.ceil(steps / every) * seconds for name, (seconds, every) in self.extras.items()
        }


def measure_cost(trainer: Trainer, watch: Watch) -> Cost:
    """Time some seconds of steps, and the recorder's work beside them; nothing is written.

    Lazy penalties are timed in proportion, and no steps of the discriminator alone. The trainer's state changes.
    """
    trainer.state.steps_done = max(trainer.state.steps_done, trainer.experiment.discriminator.alone)
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
        job = partial(measure_snapshot, trainer, measure)
        job()  # the first one reads the real images, too
        jobs[f"{measure.name} of {measure.pairs:,} pairs"] = job, experiment.measure_every
    return {name: (_timed(trainer, job), every) for name, (job, every) in jobs.items()}


def _timed(trainer: Trainer, job: Callable[[], Any]) -> float:
    begun = _now(trainer)
    job()
    return _now(trainer) - begun


def _now(trainer: Trainer) -> float:
    """Return the time after the device has finished."""
    device = trainer.processes.device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def describe_cost(cost: Cost, experiment: Experiment) -> str:
    """Return the hours of a whole run, and the share of each part."""
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


def _size(images: Tensor) -> str:
    """Return the number and the size of images, and grey or RGB."""
    count, channels, height, width = images.shape
    return f"{count} images, {height}x{width} {'grey' if channels == 1 else 'RGB'}"


if __name__ == "__main__":
    main()
