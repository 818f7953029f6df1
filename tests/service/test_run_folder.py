"""What the processes of a service share is in a temporary folder that does not outlive them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.supervisor import run_folder
from tests.running import START, Service, has_ended, wait_until
from tests.service.test_supervisor import metric

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")


def test_the_run_folder_is_removed(
    tiny_model: Callable[..., Path], start: Callable[..., Service], tmp_path: Path
) -> None:
    """Nothing is left in the temporary directory."""
    tiny_model()
    service = start({"TMPDIR": str(tmp_path)}, processes=2, threads=1)
    assert len(list(tmp_path.glob("cogan-*"))) == 1
    service.process.terminate()
    assert service.process.wait(START) == 0
    assert list(tmp_path.glob("cogan-*")) == []


def test_a_killed_service_leaves_no_run_folder_for_long(
    tiny_model: Callable[..., Path], start: Callable[..., Service], tmp_path: Path
) -> None:
    """Killed, it cannot remove its folder; the next one does, and leaves those of services that run, and all others."""
    tiny_model()
    other = tmp_path / "cogan-other"
    other.mkdir()
    pair = partial(start, {"TMPDIR": str(tmp_path)}, processes=2, threads=1)
    running, killed = pair(), pair()
    assert len(list(tmp_path.glob("cogan-serve-*"))) == 2
    pids = killed.children
    killed.process.kill()
    wait_until(lambda: all(map(has_ended, pids)))
    assert len(list(tmp_path.glob("cogan-serve-*"))) == 2
    pair()
    assert len(list(tmp_path.glob("cogan-serve-*"))) == 2
    assert other.is_dir()
    assert metric(running, "cogan_processes") == 2
    assert list(tmp_path.glob(".cogan-*")) == []


def test_a_run_folder_is_kept_while_a_process_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a killed service may still drain: it holds the lock, too."""
    program = """
import os, subprocess
from service.supervisor import run_folder

with run_folder() as (_, lock):
    print(subprocess.Popen(["sleep", "60"], pass_fds=[lock], stdout=subprocess.DEVNULL).pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    command, environment = [sys.executable, "-c", program], os.environ | {"TMPDIR": str(tmp_path)}
    started = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    pid = int(started.stdout)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (left,) = tmp_path.glob("cogan-serve-*")
    with run_folder():
        assert left.is_dir()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid))
    with run_folder():
        assert not left.exists()
