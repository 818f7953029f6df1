"""What a server and all its processes use, read from /proc: processor seconds and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

PROC = Path("/proc")
SET_CHILD_SUBREAPER = 36  # prctl(2)
TICKS = os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Keep this process the ancestor of whatever it starts, also of what its children leave behind."""
    ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Sum the processor seconds that processes and their ended children have used."""
    used = [fields[11:15] for pid in pids if (fields := _stat(pid))]  # user, system; the same of children
    return sum(int(ticks) for member in used for ticks in member) / TICKS


def memory_mb(pids: list[int]) -> float:
    """Sum resident memory in MB (10^6 bytes); a page that several processes share counts once."""
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
            kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib * 1024 / 1e6


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name: state, parent and so on; none if it ended."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
