"""The numbered folder of a run: everything needed to understand, repeat, resume or export it.

runs/00003_digit_edge/
    experiment.json     the whole experiment, versions, commit
    metrics.jsonl       a line of mean losses every `log_every` steps
    events/             the same for TensorBoard
    machines.json       where it was trained
    images.json         which images each domain learns from
    samples/            sheets: rows are latents, columns are domains
    checkpoints/        resumable states
    best/               the averaged generator of the best measured snapshot
    losses.png          the metrics over the steps, once the run has ended
    training.gif        the sheets, one after the other, once the run has ended
    quality.json        what `evaluate` measured
    accuracy.json       what `adapt` measured
    .lock               held by the process that trains it
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from training.config.experiment import EXPERIMENT, Experiment, parse_kept
from training.engine.machine import Processes
from training.engine.state import build_discriminator, build_generator
from training.errors import ConfigError, RunError
from training.files import expecting, make_folder, read_json, write_json, write_lines, write_tensors, writing
from training.networks.coupled import AdaptedClassifier, CoupledDiscriminator, CoupledGenerator

METRICS, EVENTS = "metrics.jsonl", "events"
MAX_CHECKPOINTS = 2  # the last, and the one before it
LIBRARIES = ("torch", "numpy", "lightning-fabric", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")
RESTORED_FROM = "restored_from"  # in the description of a run that was made of an exported model
COMPUTING = ("device", "threads", "processes", "precision")  # facts that results depend on, to the last bit
DESCRIBED = {"experiment": dict, "commit": str, "versions": dict}
CHECKPOINT = re.compile(r"step_(\d{8,})")  # others are a person's copies
MachineFacts = Mapping[str, str | int]
Snapshot = Literal["best", "last"]


class RunFolder:
    """Reads and writes one run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.samples = path / "samples"
        self.quality_file = path / "quality.json"
        self.accuracy_file = path / "accuracy.json"
        self.lock_file = path / ".lock"
        self.machines_file = path / "machines.json"
        self.images_file = path / "images.json"
        self.events = path / EVENTS
        self._experiment_file = path / "experiment.json"

    @classmethod
    def create(cls, runs: Path, experiment: Experiment, description: dict[str, Any] | None = None) -> RunFolder:
        """Make the next numbered folder below `runs` and describe the experiment in it, or as `description` does."""
        make_folder(runs)
        with writing(runs / ".lock"), FileLock(runs / ".lock"):  # runs created at once get different numbers
            run = cls(runs / f"{_next_number(runs):05d}_{experiment.name}")
            run.path.mkdir()
        for folder in (run.checkpoints, run.samples):
            folder.mkdir()
        new = {"experiment": EXPERIMENT.dump_python(experiment, mode="json"), **provenance()}
        write_json(run._experiment_file, description or new)
        return run

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Return whether a folder is that of a run."""
        return cls(path)._experiment_file.is_file()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run. Raises RunError if there is none."""
        run = cls(path)
        if not cls.is_at(path):
            raise RunError(f"{path} is no run folder: it has no {run._experiment_file.name}")
        return run

    def description(self) -> dict[str, Any]:
        """Return the experiment as plain values, the commit and the library versions. Raises RunError."""
        described: dict[str, Any] = read_json(self._experiment_file, dict)
        for name, kind in DESCRIBED.items():
            if not isinstance(described.get(name), kind):
                raise RunError(f"{self._experiment_file} does not describe a run: it has no {name}; restore the file")
        return described

    def experiment(self) -> Experiment:
        """Return the experiment of the run. Raises ConfigError if it cannot be read by this version."""
        try:
            return parse_kept(self.description()["experiment"])
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Return the steps and the values of every metric, by its name."""
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for line in read_metrics(self.path):
            for name in [name for name in line if name != "step"]:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(line[name])
        return curves

    def quality(self, *steps: int) -> dict[str, Any]:
        """Return the result of `evaluate` after one of these steps. Raises RunError if there is none."""
        return self._measured(self.quality_file, steps, "evaluate")

    def accuracy(self, steps: int) -> dict[str, Any]:
        """Return the result of `adapt` after so many steps. Raises RunError if there is none."""
        return self._measured(self.accuracy_file, (steps,), "adapt")

    def _measured(self, file: Path, steps: Sequence[int], verb: str) -> dict[str, Any]:
        measured: dict[str, Any] = read_json(file, dict) if file.is_file() else {}
        if measured.get("steps") not in steps:
            after = " or ".join(map(str, dict.fromkeys(steps)))
            raise RunError(f"{self.path} is not measured after step {after}: python -m training.{verb} {self.path}")
        return measured


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the lines of metrics in a folder, without one that was cut short; empty if there are none."""
    file, lines = folder / METRICS, []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        with suppress(json.JSONDecodeError):
            lines += [kept] if isinstance(kept := json.loads(line), dict) else []
    return lines


def find_run(runs: Path, experiment: Experiment) -> RunFolder | None:
    """Return the run of this experiment with the most steps, of equals the last, if there is one; none restored."""
    found = []
    for path in sorted(runs.glob("*_*")):
        with suppress(RunError, ConfigError):  # runs of earlier versions may be unreadable
            run = RunFolder.open(path)
            restored = RESTORED_FROM in run.description()  # it cannot go on
            found += [run] if run.experiment() == experiment and not restored else []
    return max(reversed(found), key=lambda run: last_step(run.checkpoints), default=None)


def _next_number(runs: Path) -> int:
    numbers = (re.match(r"(\d{5})_", entry.name) for entry in runs.iterdir())
    return max((int(match[1]) for match in numbers if match), default=-1) + 1


def list_samples(run: RunFolder) -> list[Path]:
    """Return the sheets of samples that a run drew, in the order of its steps."""
    return sorted(run.samples.glob("step_*.png"))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` as a whole file, and remove all but the last MAX_CHECKPOINTS."""
    file = folder / f"step_{step:08d}.pt"
    write_tensors(file, state)
    for old in list_checkpoints(folder)[:-MAX_CHECKPOINTS]:
        old.unlink()
    return file


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the last one last."""
    return sorted(file for file in folder.glob("step_*.pt") if CHECKPOINT.fullmatch(file.stem))


def last_step(folder: Path) -> int:
    """Return the step of the last checkpoint in a folder; 0 if there is none."""
    return max((int(file.stem.removeprefix("step_")) for file in list_checkpoints(folder)), default=0)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the last checkpoint in a folder onto the CPU. Raises RunError if there is none, or it is damaged."""
    files = list_checkpoints(folder)
    if not files:
        raise RunError(f"{folder} holds no checkpoint")
    *older, last = files  # the user decides whether an older one will do
    remedy = f"without it, {older[-1].name} is the last" if older else "there is no older one"
    with expecting("a checkpoint", last, remedy):
        state: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True)
    return state


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Raise RunError if the last checkpoint in a folder, which is loaded in the block, is of other networks."""
    file = list_checkpoints(folder)[-1]
    with expecting("the networks of its run's experiment.json", file, "restore both files, or train the recipe anew"):
        yield


@contextmanager
def locked(run: RunFolder, processes: Processes) -> Iterator[None]:
    """Lock a run for the processes that train it, until they exit.

    Raises RunError, in each of them, if the run is locked.
    """
    lock = FileLock(run.lock_file)
    if processes.leads:
        with writing(run.lock_file), suppress(Timeout):  # which is an OSError
            lock.acquire(blocking=False)
    if not processes.broadcast(lock.is_locked):
        raise RunError(f"{run.path} is being trained by another process: wait for its end, or stop it first")
    try:
        yield
    finally:
        lock.release()


def load_average(run: RunFolder, snapshot: Snapshot = "best") -> tuple[CoupledGenerator, int]:
    """Return the averaged generator of a run's best measured snapshot or of its last checkpoint, and its step.

    Raises RunError if there is none.
    """
    generator, folder = build_generator(run.experiment()), _snapshots(run, snapshot)
    state = load_checkpoint(folder)
    with fitting(folder):
        generator.load_state_dict(state["average"])
    return generator.eval(), state["steps_done"]


def load_discriminator(run: RunFolder) -> CoupledDiscriminator:
    """Return the discriminator of a run's last checkpoint. Raises RunError if there is none."""
    discriminator = build_discriminator(run.experiment())
    state = load_checkpoint(run.checkpoints)
    with fitting(run.checkpoints):
        discriminator.load_state_dict(state["discriminator"])
    return discriminator.eval()


def snapshot_step(run: RunFolder, snapshot: Snapshot = "best") -> int:
    """Return the step of the snapshot that `load_average` loads; 0 if there is none."""
    return last_step(_snapshots(run, snapshot))


def snapshot_after(run: RunFolder, steps: int) -> Snapshot:
    """Return which snapshot of a run is that after so many steps. Raises RunError if neither is."""
    for name in get_args(Snapshot):
        if snapshot_step(run, name) == steps:
            found: Snapshot = name
            return found
    raise RunError(f"{run.path} no longer holds its generator after {steps} steps: train what belongs to it anew")


def _snapshots(run: RunFolder, snapshot: Snapshot) -> Path:
    """Return the folder that holds a snapshot: the last is the best of a run that was not measured."""
    return run.best if snapshot == "best" and list_checkpoints(run.best) else run.checkpoints


def save_best(run: RunFolder, step: int, average: dict[str, Any], measure: str, distance: float) -> None:
    """Write the averaged generator's state after `step`, and by what measure and distance it is the best."""
    run.best.mkdir(exist_ok=True)
    written = run.best / f"step_{step:08d}.pt"
    write_tensors(written, {"steps_done": step, "average": average, "measure": measure, "distance": distance})
    for old in set(list_checkpoints(run.best)) - {written}:
        old.unlink()


def chosen_by(run: RunFolder) -> dict[str, Any]:
    """Return the measure of a run's best snapshot and its distance; empty if none was measured."""
    if not list_checkpoints(run.best):
        return {}
    state = load_checkpoint(run.best)
    return {"measure": state["measure"], "distance": state["distance"]}


def load_adapted(run: RunFolder) -> tuple[dict[str, AdaptedClassifier], int]:
    """Return each domain's classifier of the EMA discriminator of a run's last checkpoint, and its step.

    Raises RunError if there is none.
    """
    experiment, state = run.experiment(), load_checkpoint(run.checkpoints)
    if "teacher" not in state:
        raise RunError(f"{run.path} has no classifier: its experiment has no auxiliary losses (lessons)")
    network, image_range, classes = build_discriminator(experiment), experiment.image_range, experiment.classes
    with fitting(run.checkpoints):
        network.load_state_dict(state["teacher"])
    names = [domain.name for domain in experiment.domains]
    return {name: AdaptedClassifier(network, name, image_range, classes).eval() for name in names}, state["steps_done"]


def provenance() -> dict[str, Any]:
    """Return the commit of the code, with -dirty if files differ, unknown outside a checkout; and library versions."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = "unknown"
    with suppress(FileNotFoundError, subprocess.CalledProcessError):
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return {"commit": commit, "versions": versions}


def note_machine(run: RunFolder, machine: MachineFacts) -> None:
    """Add a machine to those that trained a run, unless it is among them."""
    known = machines(run)
    if machine not in known:
        write_json(run.machines_file, [*known, machine])


def machines(run: RunFolder) -> list[MachineFacts]:
    """Return the machines that trained a run, the first one first."""
    known: list[MachineFacts] = read_json(run.machines_file, list) if run.machines_file.is_file() else []
    return known


def describe_change(run: RunFolder, machine: MachineFacts, torch_version: str) -> str:
    """Return how the machine differs from a run's last, so that it does not resume bit for bit.

    Empty if it resumes exactly.
    """
    known = machines(run)
    before = known[-1] if known and machine not in known else machine
    pairs = {name: (before[name], machine[name]) for name in COMPUTING if name in before}
    pairs["torch"] = (str(run.description()["versions"].get("torch", torch_version)), torch_version)
    return "; ".join(f"{name} {was}, now {now}" for name, (was, now) in pairs.items() if was != now)


def seconds(run: RunFolder) -> float:
    """Return the wall-clock time of a run in seconds: from the start of each training to its last line.

    The times of resumed trainings add up; time in which a process was suspended counts.
    """
    total = 0.0
    for file in run.events.glob("events.out.*"):
        times = [event.wall_time for event in EventFileLoader(str(file)).Load()]
        total += max(times, default=0.0) - min(times, default=0.0)
    return total


class MetricsLog:
    """Writes each line of metrics twice: as JSON and as TensorBoard events."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open a folder's metrics for writing after `step`, forgetting lines that a killed run wrote beyond it."""
        file, events = self._file, self._folder = folder / METRICS, folder / EVENTS
        write_lines(file, [json.dumps(line) for line in read_metrics(folder) if line["step"] <= step])
        self._hook = threading.excepthook
        threading.excepthook = self._ignore_disk_errors
        with writing(file):
            self._lines = file.open("a", buffering=1, encoding="utf-8")
        with writing(events):
            self._events = SummaryWriter(events, purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the values at `step`. Raises RunError if the disk fails."""
        with writing(self._file):
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
        with writing(self._folder):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def write_picture(self, step: int, picture: Image.Image) -> None:
        """Add a sheet of samples at `step` to the events. Raises RunError if the disk fails."""
        with writing(self._folder):
            self._events.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both files. Raises RunError if the disk fails."""
        try:
            with writing(self._file):
                self._lines.close()
            with writing(self._folder):
                self._events.close()
        finally:
            threading.excepthook = self._hook

    def _ignore_disk_errors(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread if the disk fails: its next call raises the error."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)
