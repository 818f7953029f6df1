"""`python -m service` before and after it serves: refused starts, early signals, a full disk, threads that hang."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.running import ALONE, START, Service, killed, tcp_at, wait_until

COMMAND = [sys.executable, "-m", "service"]
SWALLOWS = """
import contextlib, signal
import service.__main__, service.settings as settings
load = settings.load_settings
def swallow():
    with contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    return load()
settings.load_settings = swallow
service.__main__.main()
"""


def has_handler(pid: int, number: int) -> bool:
    """Return whether a process has a handler of a signal, by what Linux says of it."""
    with suppress(FileNotFoundError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt"))
        return bool(int(caught, 16) >> (number - 1) & 1)
    return False


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_that_an_import_swallows_stops_a_start(models_dir: Path, processes: str) -> None:
    """Compiled modules ignore exceptions in some callbacks, SystemExit among them."""
    environment = os.environ | ALONE | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PROCESSES": processes}
    ended = subprocess.run([sys.executable, "-c", SWALLOWS], env=environment, timeout=START, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_stops_a_start(models_dir: Path, processes: str) -> None:
    """It is handled before there is a server: process 1 of a container would ignore it otherwise."""
    environment = os.environ | ALONE | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PROCESSES": processes}
    with killed(subprocess.Popen(COMMAND, env=environment, stderr=subprocess.PIPE, text=True)) as process:
        end = time.monotonic() + START
        while not has_handler(process.pid, signal.SIGTERM):
            assert time.monotonic() < end
        process.terminate()
        _, lines = process.communicate(timeout=START)
    assert process.returncode == 0, lines
    assert "Traceback" not in lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_processes_that_start(tiny_model: Callable[..., Path], models_dir: Path, number: int) -> None:
    """While the models load there is no server yet, and no process is left afterwards."""
    tiny_model(turns=2_000_000)  # seconds, for the warm-up
    environment = os.environ | ALONE | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PROCESSES": "2"}
    with killed(subprocess.Popen(COMMAND, env=environment, stderr=subprocess.PIPE, text=True)) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + START
        while len(pids := children.read_text().split()) < 2:
            assert time.monotonic() < end
        process.send_signal(number)
        _, lines = process.communicate(timeout=START)  # until the last process has closed it
    assert process.returncode in ((0,) if number == signal.SIGTERM else (0, 130)), lines
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("processes", [1, 2])
def test_unknown_settings_are_reported_once(
    tiny_model: Callable[..., Path], start: Callable[..., Service], processes: int
) -> None:
    """A misspelt variable is not ignored in silence, nor reported by every process."""
    tiny_model()
    service = start(processes=processes, treads=1)
    line = service.wait_for(lambda line: "COGAN_TREADS" in str(line["message"]))
    assert (line["level"], line["message"]) == ("warning", "ignoring unknown setting COGAN_TREADS")
    assert sum("COGAN_TREADS" in str(line["message"]) for line in service.lines) == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_full_disk_costs_log_lines_only(tiny_model: Callable[..., Path], models_dir: Path, processes: str) -> None:
    """If no line can be written, every request is answered, and the service stops when it is told to."""
    tiny_model()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": str(port), "COGAN_LOG_LEVEL": "debug"}
    settings["COGAN_PROCESSES"] = processes
    with Path("/dev/full").open("w") as full, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        process = subprocess.Popen(COMMAND, env=os.environ | settings, stderr=full)
        try:
            wait_until_ready(client)
            for seed in range(3):
                assert client.get(f"/generate?seed={seed}").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(START) == 0
        finally:
            process.kill()
            process.wait()


def wait_until_ready(client: httpx.Client) -> None:
    """Ask until a service answers that it is ready."""
    end, ready = time.monotonic() + START, False
    while not ready:
        assert time.monotonic() < end
        time.sleep(0.05)
        with suppress(httpx.TransportError):
            ready = client.get("/readyz").is_success


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """Python itself would wait for it for ever; the log names it, and the status is not 0."""
    code = (
        "import sys, threading, time; from service.__main__ import _exit_status\n"
        "threading.Thread(target=time.sleep, args=(3600,), name='worker_0').start(); sys.exit(_exit_status())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=START)
    assert (ended.returncode, ended.stderr) == (1, "exiting although these threads still run: worker_0\n")


# Starts that are refused


def run_service(models_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a service that cannot start."""
    environment = os.environ | {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": "0"} | variables
    return subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=START, check=False)


@pytest.mark.parametrize("first", ["1", "2"])
def test_a_second_service_at_an_address_is_refused(
    tiny_model: Callable[..., Path], models_dir: Path, start: Callable[..., Service], first: str
) -> None:
    """One line that names the address, and status 2, of however many processes; the first goes on."""
    tiny_model()
    service = start(processes=first, threads=1)
    reason = "Address already in use; .*another port"
    wanted = rf"cogan-serve: COGAN_HOST = '127\.0\.0\.1', COGAN_PORT = {service.port}: {reason}\n"
    for second in ("1", "2"):
        refused = run_service(models_dir, COGAN_PORT=str(service.port), COGAN_PROCESSES=second)
        assert (refused.returncode, bool(re.fullmatch(wanted, refused.stderr))) == (2, True), refused.stderr
        assert httpx.get(f"{service.url}/livez").status_code == 200


def test_a_second_service_is_refused_while_the_first_starts(tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """The supervisor holds the address before any of its processes listens there."""
    tiny_model(turns=3_000_000)  # seconds, for the warm-up
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"COGAN_MODELS_DIR": str(models_dir), "COGAN_PORT": str(port), "COGAN_PROCESSES": "2"}
    with killed(subprocess.Popen(COMMAND, env=os.environ | variables, stderr=subprocess.PIPE, text=True)) as first:
        pid = first.pid
        wait_until(lambda: len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 2)
        assert not tcp_at(port)  # they do not listen yet
        refused = [run_service(models_dir, COGAN_PORT=str(port), COGAN_PROCESSES=n) for n in ("1", "2")]
        assert not tcp_at(port)
        first.terminate()
        _, lines = first.communicate(timeout=START)
    assert [one.returncode for one in refused] == [2, 2]
    assert all("in use" in one.stderr for one in refused)
    assert first.returncode == 0, lines


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"COGAN_PORT": "http"}, "COGAN_PORT = 'http': Input should be a valid integer"),
        ({"COGAN_TRUSTED_PROXIES": "10.0.0.0/8,*"}, "'*' allows all, so it must stand alone"),
        ({"COGAN_PROVIDER": "cuda"}, "COGAN_PROVIDER = 'cuda' (--provider) needs onnxruntime's CUDAExecutionProvider"),
        ({"COGAN_DEFAULT_MODEL": "nobody"}, "COGAN_DEFAULT_MODEL = 'nobody' is not served; generators are tiny"),
        ({"COGAN_API_KEYS_FILE": "/nowhere"}, "COGAN_API_KEYS_FILE = '/nowhere' cannot be read"),
        ({"COGAN_HOST": "no.such.host.invalid"}, "COGAN_HOST = 'no.such.host.invalid', COGAN_PORT = 0"),
    ],
    ids=["port", "proxies", "provider", "default model", "keys", "host"],
)
def test_a_wrong_setting_ends_in_one_line(
    tiny_model: Callable[..., Path], models_dir: Path, settings: dict[str, str], complaint: str, processes: str
) -> None:
    """No traceback: one line that says what is wrong, once for all processes, and exit status 2."""
    tiny_model()
    ended = run_service(models_dir, COGAN_PROCESSES=processes, **settings)
    lines = [line for line in ended.stderr.splitlines() if '"message": "model served' not in line]
    assert (ended.returncode, len(lines)) == (2, 1), ended.stderr
    assert lines[0].startswith("cogan-serve: ")
    assert complaint in lines[0]
