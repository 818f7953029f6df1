"""What a run took: the machines that trained it, and for how long."""

from __future__ import annotations

from collections.abc import Mapping

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from training.files import read_json, write_json
from training.runs.folder import RunFolder

COMPUTING = ("device", "threads", "processes", "precision")  # what results depend on, to the last bit
MachineFacts = Mapping[str, str | int]


def note_machine(run: RunFolder, machine: MachineFacts) -> None:
    """Add a machine to those that trained a run, unless it is among them."""
    known = machines(run)
    if machine not in known:
        write_json(run.machines_file, [*known, machine])


def machines(run: RunFolder) -> list[MachineFacts]:
    """Return the machines that trained a run, the first one first."""
    known: list[MachineFacts] = read_json(run.machines_file) if run.machines_file.is_file() else []
    return known


def describe_change(run: RunFolder, machine: MachineFacts, torch_version: str) -> str:
    """Return what a run is trained on otherwise than before, so that it does not go on bit for bit.

    Nothing if it goes on exactly.
    """
    known = machines(run)
    before = known[-1] if known and machine not in known else machine
    pairs = {name: (before[name], machine[name]) for name in COMPUTING if name in before}
    pairs["torch"] = (str(run.description()["versions"].get("torch", torch_version)), torch_version)
    return "; ".join(f"{name} {was}, now {now}" for name, (was, now) in pairs.items() if was != now)


def seconds(run: RunFolder) -> float:
    """Return how long a run was trained, by the clock: from the begin of each training to its last line.

    Trainings that were stopped and went on add up; a time in which one was halted counts.
    """
    total = 0.0
    for file in run.events.glob("events.out.*"):
        times = [event.wall_time for event in EventFileLoader(str(file)).Load()]
        total += max(times, default=0.0) - min(times, default=0.0)
    return total
