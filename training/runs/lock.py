"""Who trains a run: one process at a time, or several that train it together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from training.compute.processes import Processes
from training.errors import RunError
from training.runs.folder import RunFolder


@contextmanager
def held(run: RunFolder, processes: Processes) -> Iterator[None]:
    """Hold a run for the processes that train it; however they end, they let it go.

    Raises RunError, in each of them, where the run is held already.
    """
    lock = FileLock(run.lock_file)
    if not processes.told(processes.leads and _take(lock)):
        raise RunError(f"{run.path} is being trained by another process: wait for its end, or stop it first")
    try:
        yield
    finally:
        lock.release()


def _take(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
